"""Picture `control_chart.png`: test images in made-up hours, in two of which many are defects."""

from pathlib import Path

import pandas as pd

from benchmarks.pictures.demo import Demo
from llbnad.config import METHOD
from llbnad.monitoring.control_chart import control_chart, draw_chart, promised_shares
from llbnad.utils.hashing import stable_shuffle

PER_HOUR, HOURS, BAD_HOURS = 12, 14, (11, 12)


def draw(demo: Demo, out: Path) -> None:
    """Draw a control chart of test images in random order, in made-up hours, in two of which many are defects."""
    normal, defects = (stable_shuffle(demo.tested(one)["image_id"], 0, "chart") for one in (False, True))
    queue = {False: list(normal), True: list(defects)}
    rows = []
    for hour in range(HOURS):
        for place in range(PER_HOUR):
            bad = place % 3 != 0 if hour in BAD_HOURS else place == 0 and hour % 4 == 0
            if queue[bad]:
                rows.append((f"2026-03-02T{6 + hour:02d}:00", queue[bad].pop()))
    images = pd.DataFrame(rows, columns=["hour", "image_id"])
    scores = demo.run.evaluation.scores[METHOD].of(images["image_id"].tolist())
    images = images.assign(model="demo", label=demo.threshold.labels(scores))
    title = "The demo's test images in made-up hours"
    draw_chart(control_chart(images, {"demo": promised_shares(demo.threshold)}), out / "control_chart.png", title)
