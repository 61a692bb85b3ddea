"""Recording in MLflow as a side effect: a finished stage records its results, and never fails because of MLflow.

Stages that DVC skipped as unchanged are recorded together with the evaluation, from their outputs on disk, so that each
record is complete. Where DVC restored the evaluation itself from its cache, nothing ran that could record: who started
DVC asks for the `unrecorded` ones then. `orchestration.tracking.mlflow_runs` describes the content of a run.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from llbnad.errors import DataError
from orchestration.pipeline.outputs import noisy_manifest
from orchestration.pipeline.params import Params
from orchestration.pipeline.paths import FINAL_STAGE, STAGES, stage_dir
from orchestration.pipeline.settings import read_settings
from orchestration.tracking.mlflow_runs import scenario_run
from orchestration.tracking.scenario_run import is_recorded
from orchestration.tracking.server import tracking_uri, without_password


def record_stage(
    stage: str,
    scenario: str,
    params: Params,
    number: int | None = None,
    metrics: Mapping[str, float] | None = None,
    artifacts: Sequence[Path] = (),
) -> bool:
    """Record the results of `stage` for `scenario`. If the tracking server makes trouble, warn and go on.

    Args:
        stage: noisy … evaluation.
        scenario: name in params.yaml.
        params: the settings.
        number: which of the `sub_model` stages.
        metrics: metrics that its outputs do not hold, by name.
        artifacts: files to upload.

    Returns:
        Whether the record arrived.
    """
    try:
        with scenario_run(scenario, params) as run:
            run.add(stage, number, metrics or {}, artifacts)
            run.add_lock_hashes(STAGES[: STAGES.index(stage)])  # DVC writes a stage's own hashes after it
            if stage == "evaluation":
                run.add_from_disk()
    except Exception as error:  # whatever it is, the stage's work is done and must stand
        _warn(f"stage {stage}", scenario, error)
        return False
    return True


def record_scenario(scenario: str, anew: bool = True) -> bool:
    """Record all stages of `scenario` from their outputs.

    Args:
        scenario: name in params.yaml.
        anew: whether what is recorded already is sent again.

    Returns:
        Whether the record arrived.

    Raises:
        ConfigError: there is no such scenario.
        DataError: it has no outputs yet.
    """
    params = read_settings(scenario)
    manifest = noisy_manifest(scenario)
    if not manifest.exists():
        raise DataError(f"no outputs of scenario {scenario} ({manifest} is missing): run `dvc repro` first")
    try:
        with scenario_run(scenario, params) as run:
            run.add_from_disk(anew)
            run.add_lock_hashes(STAGES)
    except Exception as error:
        _warn("the scenario", scenario, error)
        return False
    return True


def unrecorded(scenarios: Iterable[str]) -> list[str]:
    """Return the scenarios that have an evaluation which MLflow was not sent. No server is asked.

    Raises:
        ConfigError: there is no such scenario.
    """
    evaluated = [name for name in scenarios if (stage_dir(FINAL_STAGE, name) / "metrics.json").exists()]
    return [name for name in evaluated if not is_recorded(name, read_settings(name))]


def _warn(what: str, scenario: str, error: Exception) -> None:
    line = "!" * 100
    print(
        f"{line}\n"
        f"WARNING: MLflow did not record {what} of {scenario}.\n"
        f"  tracking URI:  {without_password(tracking_uri())}\n"
        f"  error:         {type(error).__name__}: {without_password(' '.join(str(error).split()))[:600]}\n"
        f"  The outputs are complete and on disk, nothing is lost. Send the record later, when the server is up:\n"
        f"      python -m orchestration record {scenario}\n"
        f"{line}",
        file=sys.stderr,
        flush=True,
    )
