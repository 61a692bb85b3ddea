"""The MLflow runs of a scenario: one parent run, and one nested run per `sub_model` stage.

Every stage is a process of its own and finds the run by a key, which is a tag of the run. The key is the hash of name,
settings, noisy manifest and review file of the scenario. Recording again changes nothing. Tags hold the hashes
of outputs: `md5.<stage>` the digests of a stage's files, `dvc.<stage>` the hashes in dvc.lock.
"""

import hashlib
import json
import math
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from llbnad.utils.files import file_digest, write_json
from orchestration.pipeline import dvc
from orchestration.pipeline.outputs import noisy_manifest
from orchestration.pipeline.params import Params
from orchestration.pipeline.paths import STAGES, stage_dir, sub_model_dir
from orchestration.pipeline.settings import settings_path
from orchestration.tracking.database import prepare_database
from orchestration.tracking.server import MLFLOW_FOLDER, is_http, pages, prepare_environment, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = "llbnad"
SUFFIXES = {".png", ".csv", ".parquet", ".safetensors", ".json"}
MAX_UPLOAD = 256 * 2**20  # bytes; only the hash of a larger file is recorded
LOCK_SECONDS = 60  # other stages hold the lock for seconds


def lock_tags(scenario: str, params: Params, stages: Sequence[str]) -> dict[str, str]:
    """Return dvc.lock's hashes of a scenario's `stages` as tags: `dvc.<stage>` holds path and MD5 of each output.

    A stage that is not in dvc.lock has no tag; each sub-model has one of its own, `dvc.sub_model_<number>`.
    """
    if not Path("dvc.lock").exists():
        return {}
    names = {stage: f"{stage}@{scenario}" for stage in stages if stage not in ("raw", "sub_model")}
    if "raw" in stages:
        names["raw"] = f"raw@{params.scenario(scenario).dataset}"
    if "sub_model" in stages:
        names |= {f"sub_model_{k}": f"sub_model@{scenario}-{k}" for k in params.sub_models}
    lock = dvc.read_lock(Path.cwd())
    found = {label: dvc.outputs(lock, name) for label, name in names.items()}
    return {f"dvc.{label}": json.dumps(hashes) for label, hashes in found.items() if hashes}


def link_path(scenario: str) -> Path:
    """Return the JSON file of the scenario's latest run: run_id, experiment_id, url and the MD5 of its settings."""
    return MLFLOW_FOLDER / "runs" / f"{scenario}.json"


def scenario_key(scenario: str, params: Params) -> str:
    """Return the hash that identifies a run: of scenario name, settings, stages, noisy manifest and verdicts."""
    identity = [
        scenario,
        params.scenario(scenario).model_dump(mode="json"),
        list(params.sub_models),
        file_digest(noisy_manifest(scenario), "md5"),
        file_digest(Path(params.scenario(scenario).review), "md5"),
    ]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


class ScenarioRun:
    """The parent run of a scenario and its nested runs."""

    def __init__(self, client: "MlflowClient", experiment_id: str, scenario: str, params: Params):
        self.client, self.experiment_id, self.scenario, self.params = client, experiment_id, scenario, params
        self.parent = self._run(scenario_key(scenario, params), scenario, {})

    def add(
        self, stage: str, number: int | None, metrics: Mapping[str, float | None], artifacts: Sequence[Path]
    ) -> None:
        """Log a stage's metrics (the given metrics, and the metrics in its JSON and CSV files), files and hashes."""
        run = self.parent if number is None else self._nested(number)
        folder = _folder(stage, self.scenario, self.params, number)
        metrics = {**metrics, **_metrics(stage, folder)}
        for path in artifacts:
            if path.stat().st_size <= MAX_UPLOAD:
                inside = path.parent.relative_to(folder) if path.is_relative_to(folder) else Path()
                self.client.log_artifact(run.info.run_id, str(path), (stage / inside).as_posix())
        digests = _digests(folder, stage)
        self._log(run, metrics, {f"md5.{stage}": json.dumps(digests, sort_keys=True), **git_tags()})

    def add_from_disk(self, anew: bool = False) -> None:
        """Log the stages whose outputs on disk are not recorded yet; with `anew`, log all stages."""
        several = {"sub_model": self.params.sub_models}
        for stage, number in ((name, k) for name in STAGES for k in several.get(name, (None,))):
            folder = _folder(stage, self.scenario, self.params, number)
            digests = _digests(folder, stage)
            run = self._find(self._nested_key(number)) if number is not None else self.parent
            known = run.data.tags.get(f"md5.{stage}") if run else None
            if digests and (anew or known != json.dumps(digests, sort_keys=True)):
                self.add(stage, number, {}, [folder / name for name in digests])

    def add_lock_hashes(self, stages: Sequence[str]) -> None:
        """Tag the parent with dvc.lock's hashes of `stages`."""
        if tags := lock_tags(self.scenario, self.params, stages):
            self._log(self.parent, {}, tags)

    def link(self) -> None:
        """Write the address of the run to its JSON file, where Dagster and people find it."""
        run_id = self.parent.info.run_id
        url = f"{pages(tracking_uri())}/#/experiments/{self.experiment_id}/runs/{run_id}"
        settings = file_digest(settings_path(self.scenario), "md5")
        link = {"run_id": run_id, "experiment_id": self.experiment_id, "url": url, "md5.settings": settings}
        write_json(link, link_path(self.scenario))

    def _log(self, run: "Run", metrics: Mapping[str, float | None], tags: Mapping[str, str]) -> None:
        """Log metrics and tags in one request. Values that the run has are left out, so a rerun adds nothing."""
        from mlflow.entities import Metric, RunStatus, RunTag

        now = int(time.time() * 1000)
        fresh = [
            Metric(name, float(value), now, 0)
            for name, value in metrics.items()
            if value is not None and not _same(run.data.metrics.get(name), float(value))
        ]
        changed = [RunTag(name, value) for name, value in tags.items() if run.data.tags.get(name) != value]
        if fresh or changed:
            self.client.log_batch(run.info.run_id, metrics=fresh, tags=changed)
            if run is self.parent:  # refresh the copy, which lacks what was logged
                self.parent = self.client.get_run(run.info.run_id)
        self.client.set_terminated(run.info.run_id, RunStatus.to_string(RunStatus.FINISHED))

    def _nested(self, number: int) -> "Run":
        parent = {"mlflow.parentRunId": self.parent.info.run_id}
        return self._run(self._nested_key(number), f"sub_model_{number}", parent, {"stage": number})

    def _nested_key(self, number: int) -> str:
        return hashlib.sha256(f"{self.parent.info.run_id} {number}".encode()).hexdigest()

    def _run(self, key: str, name: str, tags: dict[str, str], extra: Mapping[str, Any] | None = None) -> "Run":
        """Return the run with this key. Create it, with the scenario's settings as parameters, if there is none."""
        from mlflow.entities import Param

        found = self._find(key)
        if found is not None:
            return found
        run = self.client.create_run(self.experiment_id, tags={**tags, "llbnad.key": key}, run_name=name)
        settings = self.params.scenario(self.scenario).model_dump(mode="json")
        stages = len(self.params.sub_models)
        flat = {"scenario": self.scenario, "sub_model_stages": stages, **_flatten(settings), **(extra or {})}
        self.client.log_batch(run.info.run_id, params=[Param(key, str(value)) for key, value in flat.items()])
        return run

    def _find(self, key: str) -> "Run | None":
        # the oldest, because two machines may have created one at the same moment
        query, oldest = f"tags.`llbnad.key` = '{key}'", ["attributes.start_time ASC"]
        runs = self.client.search_runs([self.experiment_id], query, order_by=oldest, max_results=1)
        return runs[0] if runs else None


@contextmanager
def scenario_run(scenario: str, params: Params) -> Iterator[ScenarioRun]:
    """Yield the scenario's run, found or created, under a lock that all stages of this workspace share."""
    prepare_environment()
    prepare_database()
    from filelock import FileLock
    from mlflow import MlflowClient

    uri = tracking_uri()
    client = MlflowClient(uri)
    if is_http(uri):
        client.get_experiment_by_name(EXPERIMENT)  # before the lock, so that stages notice together if a server is down
    MLFLOW_FOLDER.mkdir(exist_ok=True)
    with FileLock(MLFLOW_FOLDER / ".lock", timeout=LOCK_SECONDS):
        run = ScenarioRun(client, _experiment(client, uri), scenario, params)
        yield run
        run.link()


def record_table(name: str, settings: Mapping[str, Any], table: pd.DataFrame, files: Sequence[Path]) -> None:
    """Log a benchmark table as a run of its own: settings, what it measured, files.

    The rows are told apart by detector, and by those of n, policy and alpha that the table has.
    """
    prepare_environment()
    prepare_database()
    from mlflow import MlflowClient
    from mlflow.entities import Metric, RunTag

    uri = tracking_uri()
    client = MlflowClient(uri)
    MLFLOW_FOLDER.mkdir(exist_ok=True)
    run = client.create_run(_experiment(client, uri), run_name=f"table {name}")
    now = int(time.time() * 1000)
    metrics = [
        Metric("/".join([column, row["detector"], *_place(row)]), float(row[column]), now, 0)
        for row in table.to_dict("records")
        for column in ("image_auroc", "gain", "closed", "recall", "recall_ratio", "fpr", "blind")
        if not pd.isna(row.get(column))
    ]
    tags = [RunTag("grid", json.dumps(settings, sort_keys=True)[:5000]), *(RunTag(*tag) for tag in git_tags().items())]
    client.log_batch(run.info.run_id, metrics=metrics, tags=tags)
    for path in files:
        client.log_artifact(run.info.run_id, str(path))
    client.set_terminated(run.info.run_id)


def _experiment(client: "MlflowClient", uri: str) -> str:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is not None:
        return str(experiment.experiment_id)
    # a server decides where artifacts go; for a bare database, MLflow would put them into ./mlruns
    location = None if is_http(uri) else (MLFLOW_FOLDER / "artifacts").resolve().as_uri()
    return str(client.create_experiment(EXPERIMENT, artifact_location=location))


def _folder(stage: str, scenario: str, params: Params, number: int | None) -> Path:
    if stage == "raw":
        return stage_dir("raw", params.scenario(scenario).dataset)
    return stage_dir(stage, scenario) if number is None else sub_model_dir(scenario, number)


def _digests(folder: Path, stage: str) -> dict[str, str]:
    """Return the MD5 of a stage's output files, by name. The images of stage `raw` are left out."""
    paths = folder.glob("*" if stage == "raw" else "**/*")
    files = [path for path in paths if path.is_file() and path.suffix in SUFFIXES]
    return {path.relative_to(folder).as_posix(): file_digest(path, "md5") for path in sorted(files)}


def _place(row: Mapping[Any, Any]) -> list[str]:
    """Return the parts of a metric's name that tell the rows of a benchmark table apart."""
    size = [f"n_{row['n']}"] if "n" in row else []
    policy = [row["policy"]] if "policy" in row else []
    return [*size, *policy, *([f"alpha_{row['alpha']:g}"] if "alpha" in row else [])]


def _metrics(stage: str, folder: Path) -> dict[str, float | None]:
    """Return the numbers in a stage's output files, by name."""
    name = {"purified": "summary.json", "evaluation": "metrics.json"}.get(stage)
    content = json.loads((folder / name).read_text()) if name and (folder / name).exists() else {}
    numbers: dict[str, float | None] = {key: value for key, value in content.items() if isinstance(value, int | float)}
    if stage == "evaluation" and (folder / "comparison.csv").exists():
        for row in pd.read_csv(folder / "comparison.csv").to_dict("records"):
            value = row.get("image_auroc")
            numbers[f"image_auroc_{row['method']}"] = None if pd.isna(value) else float(value)
    return numbers


def _flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat.update(_flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat


def _same(old: float | None, new: float) -> bool:
    return old is not None and (old == new or (math.isnan(old) and math.isnan(new)))


NO_CODE = (":!dvc.lock", ":!data/raw")  # records, not code: the tags of a run hold their hashes


def git_tags() -> dict[str, str]:
    """Return the git commit as a tag, with `-dirty` if tracked files have changed; empty without git.

    The records that the pipeline and the ingest rewrite do not count as changes.
    """

    code = Path("orchestration").resolve().parent  # in a slice of this machine, code is a link into the workspace

    def git(*arguments: str) -> str:
        command = ["git", "--no-optional-locks", *arguments]
        return subprocess.run(command, cwd=code, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    try:
        commit = git("rev-parse", "--verify", "HEAD")
        changes = git("status", "--porcelain", "--untracked-files=no", "--", ".", *NO_CODE)
    except (OSError, subprocess.SubprocessError):  # no git, no repository, no commit
        return {}
    return {"git.commit": commit + ("-dirty" if changes else "")}
