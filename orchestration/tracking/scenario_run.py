"""The MLflow runs of a scenario: one parent run, and one nested run per `sub_model` stage.

Every stage is a process of its own and finds the run by a key, which is a tag of the run. The key is the hash of name,
settings, noisy manifest and review file of the scenario. Recording again changes nothing. Tags hold the hashes
of outputs: `md5.<stage>` the digests of a stage's files, `dvc.<stage>` the hashes in dvc.lock.

A run ends when its last stage was recorded. What is written later, such as the version that its detector became, does
not move that end.
"""

import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llbnad.config import METHOD
from llbnad.purification.verdicts import read_verdicts
from llbnad.utils.files import file_digest, write_json
from orchestration.pipeline.outputs import noisy_manifest
from orchestration.pipeline.params import Params
from orchestration.pipeline.paths import FINAL_STAGE, STAGES, stage_dir, sub_model_dir
from orchestration.pipeline.settings import settings_path
from orchestration.tracking.beside_earlier import BESIDE, PREDICTIONS, VERDICTS, beside_earlier, beside_words
from orchestration.tracking.datasets import dataset_inputs
from orchestration.tracking.metric_names import in_mlflow
from orchestration.tracking.provenance import lock_tags, source_tags
from orchestration.tracking.run_name import run_name
from orchestration.tracking.run_note import command, recorded, run_note
from orchestration.tracking.server import MLFLOW_FOLDER, page, tracking_uri
from orchestration.tracking.stage_metrics import stage_metrics

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

SUFFIXES = {".png", ".csv", ".parquet", ".safetensors", ".json"}
MAX_UPLOAD = 256 * 2**20  # bytes; only the hash of a larger file is recorded
KEY, VERSION, OWN_NOTE = "llbnad.key", "llbnad.version", "llbnad.note"  # tags of a run
NOTE = "mlflow.note.content"  # MLflow's tag of the description
COLOUR = "mlflow.runColor"  # MLflow's tag of the colour of a run in lists and charts
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F5AA8", "#6B6B6B")  # told apart by all
MOST_RUNS = 1000  # whose colours are counted


def link_path(scenario: str) -> Path:
    """Return the JSON file of the run whose results are on disk: run_id, experiment_id, url, the MD5 of its settings,
    its key, the hash of the evaluation that it holds, and the run_id of the one whose results were there before."""
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


def is_recorded(scenario: str, params: Params) -> bool:
    """Return whether the scenario's evaluation was sent to MLflow, as it is now. Only files here are read.

    Args:
        scenario: name in params.yaml, whose evaluation is on disk.
        params: the settings.
    """
    link = _read_link(scenario)
    now = _tag_of(_digests(stage_dir(FINAL_STAGE, scenario), FINAL_STAGE))
    return link.get("key") == scenario_key(scenario, params) and link.get("evaluation") == _digest(now)


def compared_with_earlier(scenario: str, params: Params) -> str:
    """Return how a scenario's run compares with what stood on disk before, in one line.

    It is empty if there is none, or if MLflow was not sent the evaluation that is on disk. Arguments are those of
    `is_recorded`.
    """
    return str(_read_link(scenario).get("beside", "")) if is_recorded(scenario, params) else ""


def _read_link(scenario: str) -> dict[str, str]:
    file = link_path(scenario)
    return json.loads(file.read_text()) if file.exists() else {}


class ScenarioRun:
    """The parent run of a scenario and its nested runs."""

    def __init__(self, client: "MlflowClient", experiment_id: str, scenario: str, params: Params):
        self.client, self.experiment_id, self.scenario, self.params = client, experiment_id, scenario, params
        self.key = scenario_key(scenario, params)
        self.parent = self._run(self.key, self._name(), {})

    def add(
        self, stage: str, number: int | None, metrics: Mapping[str, float | None], artifacts: Sequence[Path]
    ) -> None:
        """Log a stage's metrics (the given metrics, and those in its outputs), files and hashes."""
        run = self.parent if number is None else self._nested(number)
        folder = _folder(stage, self.scenario, self.params, number)
        metrics = in_mlflow(stage, {**metrics, **stage_metrics(stage, self.scenario, self.params, number)})
        for path in artifacts:
            if path.stat().st_size <= MAX_UPLOAD:
                inside = path.parent.relative_to(folder) if path.is_relative_to(folder) else Path()
                self.client.log_artifact(run.info.run_id, str(path), (stage / inside).as_posix())
        digests = _tag_of(_digests(folder, stage))
        anew = run.data.tags.get(f"md5.{stage}") != digests
        self._log(run, metrics, {f"md5.{stage}": digests, **source_tags(command(self.scenario))}, ends_now=anew)

    def add_from_disk(self, anew: bool = False) -> None:
        """Log the stages whose outputs on disk are not recorded yet; with `anew`, log all stages."""
        several = {"sub_model": self.params.sub_models}
        for stage, number in ((name, k) for name in STAGES for k in several.get(name, (None,))):
            folder = _folder(stage, self.scenario, self.params, number)
            digests = _digests(folder, stage)
            run = self._find(self._nested_key(number)) if number is not None else self.parent
            known = run.data.tags.get(f"md5.{stage}") if run else None
            if digests and (anew or known != _tag_of(digests)):
                self.add(stage, number, {}, [folder / name for name in digests])

    def add_lock_hashes(self, stages: Sequence[str]) -> None:
        """Tag the parent with dvc.lock's hashes of `stages`."""
        if tags := lock_tags(self.scenario, self.params, stages):
            self._log(self.parent, {}, tags)

    def add_version(self, version: str, md5: str) -> None:
        """Say which registered version the run's detector is.

        Args:
            version: number of the version.
            md5: MD5 of its model file.
        """
        self._log(self.parent, {}, {VERSION: json.dumps({"version": version, "md5": md5}, sort_keys=True)})

    def describe(self) -> None:
        """Write the run's name, its images as MLflow's datasets, and its description.

        What is there already is not written again, and a description that a person has changed is left alone.
        """
        info, tags = self.parent.info, self.parent.data.tags
        if info.run_name != (name := self._name(self._version())):
            self.client.update_run(info.run_id, name=name)
        logged = self.parent.inputs.dataset_inputs if self.parent.inputs else []
        known = {(one.dataset.name, one.dataset.digest) for one in logged}
        if missing := dataset_inputs(self.scenario, self.params, known):
            self.client.log_inputs(info.run_id, datasets=missing)
        if recorded(tags, FINAL_STAGE, stage_dir(FINAL_STAGE, self.scenario), PREDICTIONS):
            beside = beside_earlier(self.client, self.scenario, self.parent, self._before())
            self._log(self.parent, {}, {} if beside is None else {BESIDE: beside})
            tags = self.parent.data.tags
        note = run_note(self.scenario, self.params, tags, self.experiment_id, info.run_id)
        if _digest(tags.get(NOTE, "")) == tags.get(OWN_NOTE, _digest("")):
            self._log(self.parent, {}, {NOTE: note, OWN_NOTE: _digest(note)})

    def link(self) -> None:
        """Write the address of the run to its JSON file, where Dagster and people find it."""
        run_id = self.parent.info.run_id
        url = page(tracking_uri(), "experiments", self.experiment_id, "runs", run_id)
        settings = file_digest(settings_path(self.scenario), "md5")
        evaluation = _digest(self.parent.data.tags.get(f"md5.{FINAL_STAGE}", ""))
        link = {"run_id": run_id, "experiment_id": self.experiment_id, "url": url, "md5.settings": settings,
                "key": self.key, "evaluation": evaluation, "before": self._before(),
                "beside": beside_words(self.parent.data.tags)}  # fmt: skip
        write_json(link, link_path(self.scenario))

    def _before(self) -> str | None:
        """Return the id of the run whose results were on disk before this run's; None if that is not known."""
        link = _read_link(self.scenario)
        evaluated = link.get("evaluation", _digest("")) != _digest("")
        return link["run_id"] if evaluated and link["run_id"] != self.parent.info.run_id else link.get("before")

    def _version(self) -> str | None:
        """Return the number of the run's registered version, if that is still the detector of this run."""
        tags = self.parent.data.tags
        registered = json.loads(tags.get(VERSION, "{}"))
        detector = json.loads(tags.get("md5.detector", "{}")).get(f"{METHOD}.safetensors")
        return registered["version"] if registered and registered["md5"] == detector else None

    def _name(self, version: str | None = None) -> str:
        own = self.params.scenario(self.scenario)
        return run_name(self.scenario, own.selection.policy, own.dataset, self.key, version, self._verdicts())

    def _verdicts(self) -> int:
        return len(read_verdicts(Path(self.params.scenario(self.scenario).review)))

    def _log(
        self, run: "Run", metrics: Mapping[str, float | None], tags: Mapping[str, str], ends_now: bool = False
    ) -> None:
        """Log metrics and tags in one request. Values that the run has are left out, so a rerun adds nothing.

        A run that has ended keeps its end, unless it `ends_now`.
        """
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
        end = None if ends_now else run.info.end_time  # None: now
        finished = RunStatus.to_string(RunStatus.FINISHED)
        ends = end is None or run.info.status != finished
        if ends:
            self.client.set_terminated(run.info.run_id, finished, end)
        if run is self.parent and (fresh or changed or ends):  # the copy lacks what was written
            self.parent = self.client.get_run(run.info.run_id)

    def _nested(self, number: int) -> "Run":
        parent = {"mlflow.parentRunId": self.parent.info.run_id}
        name = f"sub_model_{number} of {self._name()}"
        run = self._run(self._nested_key(number), name, parent, {"stage": number})
        if run.info.run_name != name:  # of an earlier release
            self.client.update_run(run.info.run_id, name=name)
        return run

    def _nested_key(self, number: int) -> str:
        return hashlib.sha256(f"{self.parent.info.run_id} {number}".encode()).hexdigest()

    def _run(self, key: str, name: str, tags: dict[str, str], extra: Mapping[str, Any] | None = None) -> "Run":
        """Return the run with this key. Create it, with the scenario's settings as parameters, if there is none."""
        from mlflow.entities import Param

        found = self._find(key)
        if found is not None:
            return found
        if key == self.key:
            tags = {**tags, COLOUR: self._next_colour()}
        run = self.client.create_run(self.experiment_id, tags={**tags, KEY: key}, run_name=name)
        settings = self.params.scenario(self.scenario).model_dump(mode="json")
        stages = len(self.params.sub_models)
        about = {"scenario": self.scenario, "sub_model_stages": stages, VERDICTS: self._verdicts()}
        flat = {**about, **_flatten(settings), **(extra or {})}
        self.client.log_batch(run.info.run_id, params=[Param(key, str(value)) for key, value in flat.items()])
        return self.client.get_run(run.info.run_id)  # with these parameters

    def _next_colour(self) -> str:
        """Return the colour of a new run in MLflow's charts; without one, several runs may get the same."""
        known = self.client.search_runs([self.experiment_id], f"tags.`{COLOUR}` LIKE '#%'", max_results=MOST_RUNS)
        return COLOURS[len(known) % len(COLOURS)]

    def _find(self, key: str) -> "Run | None":
        # the oldest, because two machines may have created one at the same moment
        query, oldest = f"tags.`{KEY}` = '{key}'", ["attributes.start_time ASC"]
        runs = self.client.search_runs([self.experiment_id], query, order_by=oldest, max_results=1)
        return runs[0] if runs else None


def _folder(stage: str, scenario: str, params: Params, number: int | None) -> Path:
    if stage == "raw":
        return stage_dir("raw", params.scenario(scenario).dataset)
    return stage_dir(stage, scenario) if number is None else sub_model_dir(scenario, number)


def _digests(folder: Path, stage: str) -> dict[str, str]:
    """Return the MD5 of a stage's output files, by name. The images of stage `raw` are left out."""
    paths = folder.glob("*" if stage == "raw" else "**/*")
    files = [path for path in paths if path.is_file() and path.suffix in SUFFIXES]
    return {path.relative_to(folder).as_posix(): file_digest(path, "md5") for path in sorted(files)}


def _tag_of(digests: Mapping[str, str]) -> str:
    return json.dumps(digests, sort_keys=True)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat.update(_flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat


def _same(old: float | None, new: float) -> bool:
    return old is not None and (old == new or (math.isnan(old) and math.isnan(new)))
