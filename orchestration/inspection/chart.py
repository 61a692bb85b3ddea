"""The control chart of a line's scored images, as control_chart.csv and control_chart.png beside the results."""

import json
from contextlib import closing
from pathlib import Path

import pandas as pd

from llbnad.monitoring.control_chart import control_chart, draw_chart, promised_shares
from llbnad.utils.files import write_csv, write_json
from orchestration.inspection.champion import Scorer
from orchestration.inspection.ledger import Ledger

CHART, PICTURE, PROMISED = "control_chart.csv", "control_chart.png", "promised.json"


def keep_promise(out: Path, scorer: Scorer) -> None:
    """Keep what a model promises beside the results, by which its first hours are judged."""
    path = out / PROMISED
    known = json.loads(path.read_text()) if path.exists() else {}
    if scorer.name not in known:
        write_json({**known, scorer.name: promised_shares(scorer.threshold)}, path)


def write_chart(out: Path, title: str) -> pd.DataFrame:
    """Write the chart of all rows in the folder of results, and return it. Nothing is drawn if no image is scored."""
    with closing(Ledger(out)) as ledger:
        rows = [(row.scored[:13] + ":00", row.model, row.label) for row in ledger.rows() if row.score is not None]
    images = pd.DataFrame(rows, columns=["hour", "model", "label"])
    promised = json.loads((out / PROMISED).read_text()) if (out / PROMISED).exists() else {}
    chart = control_chart(images, promised)
    write_csv(chart, out / CHART)
    if len(chart):
        draw_chart(chart, out / PICTURE, title)
    return chart
