"""A scenario's run beside earlier ones: what another policy, or other data, changed on the same test images.

That is the run whose results stood in the workspace before, and of each other policy the newest run.
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from llbnad.study.two_tests import EARLIER, draw_two_tests, two_tests
from orchestration.pipeline.outputs import read_noisy
from orchestration.pipeline.paths import FINAL_STAGE, stage_dir

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PREDICTIONS = "predictions.parquet"
KEPT = "purified/kept.parquet"  # artifact of a run
PICTURE = "beside_earlier.png"  # artifact of the run, in the folder of the evaluation
LOOKED_AT, MOST_COMPARED = 50, 5  # newest runs of a scenario
BESIDE = "llbnad.beside"  # tag of a run: what was compared, and what came out
VERDICTS = "verdicts"  # parameter of a run: number of people's verdicts; one of an earlier release lacks it
DIGESTS = f"md5.{FINAL_STAGE}"  # tag of a run: digests of the evaluation that it holds


def beside_earlier(client: "MlflowClient", scenario: str, run: "Run", stood_before: str | None) -> str | None:
    """Compare a run with earlier ones of its scenario, log a picture, and return the result as the tag `BESIDE`.

    Args:
        client: MLflow's client.
        scenario: name in params.yaml, whose outputs on disk are the run's.
        run: the run; it holds the evaluation on disk.
        stood_before: id of the run whose results were on disk before; None if that is not known.

    Returns:
        the tag's value, or None if there is no other run, or none has labelled test images in common with it.
    """
    others = _others(client, scenario, run, stood_before)
    if not others:
        return None
    compared_with = [f"{one.info.run_id} {one.data.tags[DIGESTS]}" for one in others]
    content = " ".join([*compared_with, run.data.tags.get(DIGESTS, "")])
    digest = hashlib.sha256(content.encode()).hexdigest()
    known = run.data.tags.get(BESIDE)
    if known is not None and json.loads(known)["digest"] == digest:
        return known
    metrics = json.loads((stage_dir(FINAL_STAGE, scenario) / "metrics.json").read_text())
    if metrics.get("image_auroc") is None:
        return None  # an image that a detector learnt is no test of it
    now = pd.read_parquet(stage_dir(FINAL_STAGE, scenario) / PREDICTIONS)
    samples = read_noisy(scenario).drop_duplicates("image_id").set_index("image_id")["sample_id"]
    compared, drawn = list[dict[str, str]](), False
    with tempfile.TemporaryDirectory() as folder:
        for earlier in others:
            tested = _table(client, earlier, f"{FINAL_STAGE}/{PREDICTIONS}", Path(folder))
            thresholds = earlier.data.metrics.get("threshold"), metrics.get("threshold")
            if tested is None or (found := two_tests(tested, now, samples, thresholds)) is None:
                continue
            policy, own = _described(earlier), _described(run)
            told = {"run": earlier.info.run_id, "name": earlier.info.run_name, "policy": policy, "of": _time(earlier)}
            if not compared:
                which = {EARLIER: f"policy {policy}, of {told['of']}", "none": "everything (none)",
                         "oracle": "true normals (oracle)"}  # fmt: skip
                picture = Path(folder) / PICTURE
                draw_two_tests(found, which, picture, f"{scenario}, policy {own}: {found.images} test images")
                client.log_artifact(run.info.run_id, str(picture), FINAL_STAGE)
                drawn = True
            kept = _table(client, earlier, KEPT, Path(folder))
            text = found.describe() if kept is None else f"{found.describe()}; {_kept_alone(kept, scenario)}"
            compared.append({**told, "text": text})
    if not compared:
        return None
    return json.dumps({"digest": digest, "compared": compared, "picture": drawn}, sort_keys=True)


def _others(client: "MlflowClient", scenario: str, run: "Run", first: str | None) -> "list[Run]":
    """Return the run with the id `first`, or the newest one, and the newest run of each further policy but its own."""
    wanted = f"params.scenario = '{scenario}' and tags.`{DIGESTS}` LIKE '%{PREDICTIONS}%'"
    newest = ["attributes.end_time DESC"]
    runs = client.search_runs([run.info.experiment_id], wanted, order_by=newest, max_results=LOOKED_AT)
    others = [one for one in runs if one.info.run_id != run.info.run_id]
    others.sort(key=lambda one: one.info.run_id != first)  # stable: the others stay in the order of time
    by_policy: dict[str, Run] = {}
    for one in others[:1] + [one for one in others[1:] if _policy(one) != _policy(run)]:
        by_policy.setdefault(_policy(one), one)
    return [*by_policy.values()][:MOST_COMPARED]


def _time(run: "Run") -> str:
    return f"{datetime.fromtimestamp(run.info.end_time / 1000):%Y-%m-%d %H:%M}" if run.info.end_time else "?"


def _policy(run: "Run") -> str:
    own = {key: value for key, value in run.data.params.items() if key.startswith("selection.")}
    return json.dumps(own, sort_keys=True)


def _described(run: "Run") -> str:
    """Return the policy of a run, and how many verdicts of people it had."""
    policy, verdicts = run.data.params.get("selection.policy", "?"), run.data.params.get(VERDICTS, "0")
    return policy if verdicts == "0" else f"{policy} with {verdicts} verdicts"


def _kept_alone(earlier: pd.DataFrame, scenario: str) -> str:
    """Return how many images one of two runs kept and the other did not; `scenario` has this run's on disk."""
    before = set(earlier["image_id"])
    now = set(pd.read_parquet(stage_dir("purified", scenario) / Path(KEPT).name)["image_id"])
    return f"{len(now - before)} images are kept by this run alone, {len(before - now)} by the other alone"


def _table(client: "MlflowClient", run: "Run", path: str, folder: Path) -> pd.DataFrame | None:
    """Return a table that a run holds as artifact, by way of a folder; None if somebody has deleted it."""
    from mlflow.exceptions import MlflowException

    place = folder / run.info.run_id
    place.mkdir(exist_ok=True)
    try:
        return pd.read_parquet(client.download_artifacts(run.info.run_id, path, str(place)))
    except (MlflowException, OSError):
        return None


def beside_words(tags: Mapping[str, str]) -> str:
    """Return how the tags of a run compare it with what stood before, in one line; empty if they do not."""
    if BESIDE not in tags:
        return ""
    told = json.loads(tags[BESIDE])
    first = told.get("compared", [told])[0]
    return f"beside policy {first['policy']}{_of(first)}: {first['text']}"


def beside_line(tags: Mapping[str, str], experiment_id: str) -> str | None:
    """Return the comparisons in the tags of a run as Markdown; None if there is none."""
    if BESIDE not in tags:
        return None
    told = json.loads(tags[BESIDE])
    lines = [
        f"* [{one['name']}](#/experiments/{experiment_id}/runs/{one['run']}), policy `{one['policy']}`{_of(one)}: "
        f"{one['text']}."
        for one in told.get("compared", [told])  # a run of an earlier release was compared with one other
    ]
    return "\n\n".join(["**Beside other runs of this scenario**, their I-AUROC → this run's:", "\n".join(lines)])


def _of(told: Mapping[str, str]) -> str:
    return f", of {told['of']}" if "of" in told else ""  # an earlier release did not say
