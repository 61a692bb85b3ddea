"""The suspects that wait for people: rejected images that nobody has judged."""

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from llbnad.purification.purify import LEFT_OUT
from llbnad.purification.score_list import STATUS_LEFT_OUT
from llbnad.purification.verdicts import read_verdicts
from orchestration.pipeline.params import Params
from orchestration.pipeline.paths import stage_dir


def unjudged_suspects(root: Path, params: Params, scenario: str) -> str:
    """Return how many rejected images nobody has judged, of how many; a dash before purification.

    What a fixed share leaves out, such as that of policy `fraction`, is no suspect. What counts is the policy of the
    results on disk, which an edit of params.yaml does not change.

    Raises:
        DataError: the file of people's verdicts is wrong.
    """
    file = root / stage_dir("purified", scenario) / "rejected.parquet"
    if not file.exists():
        return "–"
    rejected = set(pq.read_table(file, columns=["image_id"])["image_id"].to_pylist())
    scores = file.with_name("scores.csv")
    if scores.exists() and (pd.read_csv(scores, usecols=["status"])["status"] == STATUS_LEFT_OUT).any():
        return f"– ({len(rejected)} {LEFT_OUT}, which says nothing of defects)"
    judged = read_verdicts(root / params.scenario(scenario).review)
    return f"{len(rejected - judged.keys())} not judged, of {len(rejected)} rejected"
