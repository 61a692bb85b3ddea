"""A scenario's run beside the one before it: what another policy, or other data, changed on the same test images."""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from llbnad.config import METHOD
from llbnad.study.two_tests import EARLIER, draw_two_tests, two_tests
from orchestration.pipeline.outputs import read_noisy
from orchestration.pipeline.params import Params
from orchestration.pipeline.paths import FINAL_STAGE, stage_dir

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PREDICTIONS = "predictions.parquet"
PICTURE = "beside_earlier.png"  # artifact of the run, in the folder of the evaluation
BESIDE = "llbnad.beside"  # tag of a run: what was compared, and what came out
DIGESTS = f"md5.{FINAL_STAGE}"  # tag of a run: digests of the evaluation that it holds


def beside_earlier(client: "MlflowClient", scenario: str, params: Params, run: "Run") -> str | None:
    """Compare a run with the scenario's last other one, log the picture, and return the result as the tag `BESIDE`.

    Args:
        client: MLflow's client.
        scenario: name in params.yaml, whose outputs on disk are the run's.
        params: the settings.
        run: the run; it holds the evaluation on disk.

    Returns:
        the tag's value, or None if there is no other run, or both have no labelled test images in common.
    """
    earlier = _last_other(client, scenario, run)
    if earlier is None:
        return None
    content = f"{earlier.info.run_id} {earlier.data.tags[DIGESTS]} {run.data.tags.get(DIGESTS)}"
    digest = hashlib.sha256(content.encode()).hexdigest()
    known = run.data.tags.get(BESIDE)
    if known is not None and json.loads(known)["digest"] == digest:
        return known
    if json.loads((stage_dir(FINAL_STAGE, scenario) / "metrics.json").read_text()).get("image_auroc") is None:
        return None  # an image that a detector learnt is no test of it
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory() as folder:
        try:
            held = client.download_artifacts(earlier.info.run_id, f"{FINAL_STAGE}/{PREDICTIONS}", folder)
        except (MlflowException, OSError):
            return None  # somebody has deleted it
        now = pd.read_parquet(stage_dir(FINAL_STAGE, scenario) / PREDICTIONS)
        samples = read_noisy(scenario).drop_duplicates("image_id").set_index("image_id")["sample_id"]
        found = two_tests(pd.read_parquet(held), now, samples)
        if found is None:
            return None
        policy, own = earlier.data.params.get("selection.policy", "?"), params.scenario(scenario).selection.policy
        drawn = found.none is not None
        if drawn:
            names = {EARLIER: f"{policy} (run before)", METHOD: f"{own} (this run)", "oracle": "true normals (oracle)"}
            picture = Path(folder) / PICTURE
            draw_two_tests(found, names, picture, f"{scenario}: {found.images} test images")
            client.log_artifact(run.info.run_id, str(picture), FINAL_STAGE)
    told = {"digest": digest, "run": earlier.info.run_id, "name": earlier.info.run_name, "policy": policy,
            "text": found.describe(), "picture": drawn}  # fmt: skip
    return json.dumps(told, sort_keys=True)


def _last_other(client: "MlflowClient", scenario: str, run: "Run") -> "Run | None":
    wanted = f"params.scenario = '{scenario}' and tags.`{DIGESTS}` LIKE '%{PREDICTIONS}%'"
    newest = ["attributes.end_time DESC"]
    runs = client.search_runs([run.info.experiment_id], wanted, order_by=newest, max_results=2)
    return next((one for one in runs if one.info.run_id != run.info.run_id), None)


def beside_line(tags: Mapping[str, str], experiment_id: str) -> str | None:
    """Return the comparison in the tags of a run as a paragraph of Markdown; None if there is none."""
    if BESIDE not in tags:
        return None
    told = json.loads(tags[BESIDE])
    page = f"#/experiments/{experiment_id}/runs/{told['run']}"
    return f"**Beside the run before**, [{told['name']}]({page}) with policy `{told['policy']}`: {told['text']}."
