"""The control chart of a line's scored images, as control_chart.csv and control_chart.png beside the results."""

import json
from contextlib import closing
from pathlib import Path

import pandas as pd

from llbnad.monitoring.control_chart import control_chart, draw_chart, promised_shares
from llbnad.utils.files import write_csv, write_json
from orchestration.inspection.champion import ChampionScorer
from orchestration.inspection.ledger import Ledger
from orchestration.pipeline import pipes

JUDGED_HOURS = 2  # newest hours that the check looks at: the newest may have just begun
CHART, PICTURE, PROMISED = "control_chart.csv", "control_chart.png", "promised.json"


def keep_promise(out: Path, scorer: ChampionScorer) -> None:
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


def read_chart(out: Path) -> pd.DataFrame:
    """Read the chart that was written last; without rows if there is none."""
    path = out / CHART
    if not path.exists():
        return control_chart(pd.DataFrame(columns=["hour", "model", "label"]), {})
    return pd.read_csv(path, keep_default_na=False, na_values={"low": "", "high": "", "centre": ""})


def chart_check(chart: pd.DataFrame, line: str) -> pipes.Check:
    """Return whether the newest hours of a line are within their limits, as a check that warns."""
    hours = sorted(chart["hour"].unique())[-JUDGED_HOURS:]
    judged = chart[chart["hour"].isin(hours) & chart["low"].notna()]
    if judged.empty:
        return pipes.Check(pipes.CONTROL_CHART, None, f"no hour of {line} has limits yet", "WARN")
    texts = [
        f"{row['hour']} UTC: {row['share']:.1%} of {row['images']} images are {row['label']}, "
        f"limits {row['low']:.1%} to {row['high']:.1%}" + (f", {row['outside'].upper()}" if row["outside"] else "")
        for row in judged.to_dict("records")
    ]
    passed = not judged["outside"].astype(bool).any()
    return pipes.Check(pipes.CONTROL_CHART, passed, f"{line}, {'; '.join(texts)}", "WARN")
