"""Days of a production line, played with real Dagster on real solar cells.

`Factory` is the line and what stands around it; a day is a function that takes it from one morning to the next. On the
first day the daemon itself looks, asks for the run and starts it. On the others a tick of the same sensor does: it asks
for the run, which is executed in the tick's process. Day 0, a young line with defects, is `test_young_line`.
"""

import io
import json
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient
from PIL import Image

from llbnad.detectors.patchcore.detector import PatchcoreConfig
from llbnad.model.model import Model
from llbnad.purification.partition import assign_subsets
from llbnad.utils.files import file_digest
from orchestration.line.arrivals import LineFolders, batches, read_report
from orchestration.pipeline.params import load_params
from orchestration.registry.register_version import CHECKS
from tests.pipeline.conftest import add_records, command, environment, make_workspace
from tests.pipeline.test_both_doors import check_statuses

LINE = "cells_7"
ENOUGH = 20
TICK = """
import json, sys
from datetime import UTC, datetime
import dagster as dg
from orchestration.definitions import defs
with dg.DagsterInstance.get() as instance:
    if sys.argv[1] == "nightly":
        with dg.build_schedule_context(instance=instance, scheduled_execution_time=datetime.now(UTC)) as now:
            found = defs.resolve_schedule_def("nightly")(now)
        tick = found if isinstance(found, dg.SkipReason) else dg.SensorResult(run_requests=found)
    else:
        with dg.build_sensor_context(instance=instance, cursor=sys.argv[2] or None) as now:
            tick = defs.resolve_sensor_def("arrivals")(now)
    requests = getattr(tick, "run_requests", None) or []
    for request in requests:
        defs.resolve_job_def("retrain").execute_in_process(
            instance=instance, partition_key=request.partition_key, tags={"dagster/run_key": request.run_key},
            raise_on_error=False)
print(json.dumps([len(requests), str(getattr(tick, "skip_reason", tick) or ""), getattr(tick, "cursor", None)]))
"""


class Factory:
    """A workspace without a scenario, and the daemon that watches it."""

    def __init__(self, folder: Path, cells: Path) -> None:
        few = cells.parent / "few"
        few.mkdir()
        for path in sorted((cells / "good").iterdir())[:4]:
            shutil.copy(path, few)
        other = {"dataset": "other", "noise": {"protocol": "as_is"}, "comparators": []}
        self.root = add_records(make_workspace(folder, {"other": few}, {"other": other}))
        self._settings()
        self.cells = {kind: sorted((cells / kind).iterdir()) for kind in ("good", "bad")}
        # neighbours in the data set are cells of one solar module and alike: that would be drift
        random.Random(0).shuffle(self.cells["good"])
        self.arrived: Counter[str] = Counter()  # every content that ever arrived, as often as it did
        self.log = self.root / "daemon.log"
        self.daemon: subprocess.Popen[bytes] | None = None
        self.cursor = ""  # of the sensor's ticks, which begin when the daemon has stopped

    def _settings(self) -> None:
        path = self.root / "params.yaml"
        params = yaml.safe_load(path.read_text())
        params["defaults"]["detector"]["memory_size"] = PatchcoreConfig().memory_size  # holds every patch of these few
        params["defaults"]["comparators"] = ["none"]
        params["arrival"] = {"stable_seconds": 1, "min_new_images": ENOUGH, "cron": "0 2 * * *"}
        params["scenarios"]["other"] = {**params["defaults"], **params["scenarios"]["other"]}
        path.write_text(yaml.safe_dump(params, sort_keys=False))

    def start(self) -> None:
        with self.instance():  # its database is made here: two processes that make it at once spoil it
            pass
        # from a shell's background it would ignore SIGINT
        self.daemon = subprocess.Popen(
            ["dagster-daemon", "run", "-m", "orchestration.definitions"],
            cwd=self.root, env=environment(self.root), stdout=self.log.open("ab"), stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip

    def stop(self) -> None:
        if self.daemon:
            self.daemon.send_signal(signal.SIGINT)
            self.daemon.wait(30)
            self.daemon = None

    def deliver(self, name: str, content: bytes) -> None:
        path = self.root / "data" / "incoming" / LINE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden = path.with_name(f"{path.name}.part")
        hidden.write_bytes(content)
        hidden.rename(path)
        self.arrived[file_digest(path)] += 1

    def wait_for_run(self, count: int, seconds: float = 900) -> dg.DagsterRun:
        """The newest run of the line, once there are `count` and all are finished."""
        deadline = time.monotonic() + seconds
        with self.instance() as instance:
            while True:  # looks once at least: on a busy machine, opening the instance can take the time
                runs = instance.get_runs(dg.RunsFilter(tags={"dagster/partition": LINE}))
                if len(runs) >= count and all(run.is_finished for run in runs):
                    assert len(runs) == count
                    return runs[0]
                assert self.daemon is None or self.daemon.poll() is None, self.log.read_text()[-3000:]
                late = f"no run {count} within {seconds} s:\n{self.log.read_text()[-5000:]}"
                assert time.monotonic() < deadline, late
                time.sleep(0.5)

    def tick(self, name: str = "arrivals") -> str:
        """Look once, as the daemon does; execute the run that is asked for, or return why none is."""
        done = command(self.root, ["python", "-c", TICK, name, self.cursor])
        assert done.returncode == 0, done.stderr[-5000:]
        asked, reason, cursor = json.loads(done.stdout.splitlines()[-1])
        self.cursor = cursor or self.cursor
        assert asked in (0, 1) and bool(asked) is not bool(reason), (asked, reason)
        return reason or ""

    def tick_until_run(self, count: int, seconds: float = 30) -> dg.DagsterRun:
        """Tick until the sensor asks for the line's run number `count`, and return it when it has ended."""
        deadline = time.monotonic() + seconds
        while reason := self.tick():
            assert time.monotonic() < deadline, reason
        return self.wait_for_run(count, 1)

    def instance(self) -> dg.DagsterInstance:
        return dg.DagsterInstance.from_config(str(self.root / ".dagster"))

    def shown(self, asset: str) -> dict[str, object]:
        """Return the metadata that Dagster shows of the newest materialisation."""
        with self.instance() as instance:
            wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[LINE])
            (record,) = instance.fetch_materializations(wanted, limit=1).records
        return {name: value.value for name, value in record.asset_materialization.metadata.items()}

    def check(self, asset: str, name: str) -> dg.AssetCheckEvaluation:
        """The newest verdict of an asset check."""
        with self.instance() as instance:
            wanted = dg.EventRecordsFilter(dg.DagsterEventType.ASSET_CHECK_EVALUATION)
            events = [record.event_log_entry.dagster_event for record in instance.get_event_records(wanted)]
        found = [event.asset_check_evaluation_data for event in events]
        return next(one for one in found if (one.asset_key, one.check_name) == (dg.AssetKey(asset), name))

    def statuses(self, asset: str, names: Iterable[str]) -> dict[str, str]:
        """The status of an asset's checks by name, as Dagster's pages have it."""
        with self.instance() as instance:
            return check_statuses(instance, asset, names, LINE)

    def champion(self) -> str:
        """The version that has the alias."""
        client = MlflowClient(f"sqlite:///{self.root / 'mlflow' / 'mlflow.db'}")
        return str(client.get_model_version_by_alias(f"llbnad-{LINE}", "champion").version)

    def versions(self) -> list[str]:
        """All registered versions, newest first."""
        client = MlflowClient(f"sqlite:///{self.root / 'mlflow' / 'mlflow.db'}")
        found = client.search_model_versions(f"name = 'llbnad-{LINE}'")
        return sorted((str(one.version) for one in found), key=int, reverse=True)

    def refused(self, version: str) -> str | None:
        """Why a version was refused."""
        client = MlflowClient(f"sqlite:///{self.root / 'mlflow' / 'mlflow.db'}")
        found: str | None = client.get_model_version(f"llbnad-{LINE}", version).tags.get("refused")
        return found

    def card(self, version: str) -> str:
        """The description of a version."""
        client = MlflowClient(f"sqlite:///{self.root / 'mlflow' / 'mlflow.db'}")
        return str(client.get_model_version(f"llbnad-{LINE}", version).description)

    def manifest(self) -> pd.DataFrame:
        return pd.read_parquet(self.root / "data" / "noisy" / LINE / "manifest.parquet")

    def assert_nothing_is_lost(self) -> None:
        """Every file that ever arrived is in exactly one of raw, quarantine and the report of duplicates."""
        places = LineFolders(self.root, LINE)
        report = read_report(self.root, LINE)
        assert Counter(one.sha256 for one in report) == self.arrived
        kept = {one.where: one for one in report if one.fate != "duplicate"}
        on_disk = [path for path in places.arrived.rglob("*") if path.is_file()]
        on_disk += [path for path in places.quarantine.rglob("*") if path.is_file() and path.suffix != ".json"]
        assert {places.relative(path) for path in on_disk} == set(kept)
        assert all(file_digest(self.root / where) == one.sha256 for where, one in kept.items())
        assert len({one.sha256 for one in kept.values()}) == len(kept)
        assert not [path for path in (self.root / "data" / "incoming" / LINE).rglob("*") if path.is_file()]
        assert set(self.manifest()["image_id"]) == set(batches(self.root, LINE))


@pytest.fixture(scope="module")
def factory(tmp_path_factory, cells):
    one = Factory(tmp_path_factory.mktemp("factory"), cells)
    one.start()
    yield one
    one.stop()


def day_1(factory: Factory) -> None:
    """An empty folder becomes a line with a detector; nobody edits a file or restarts a process."""
    for number, path in enumerate([*factory.cells["good"][:18], *factory.cells["bad"][:3]]):
        factory.deliver(f"morning/cell {number}.png", path.read_bytes())
    run = factory.wait_for_run(1)
    assert run.status == dg.DagsterRunStatus.SUCCESS, factory.log.read_text()[-3000:]
    assert (run.job_name, run.tags["dagster/run_key"].split("-")[:2]) == ("retrain", [LINE, "1"])
    taken = factory.shown("ingest")
    assert (taken["new images"], taken["batch"]) == (21, 1) and not {"quarantined", "duplicates"} & taken.keys()
    features = factory.shown("features")
    assert (features["images encoded"], features["images found in the cache"]) == (21, 0)
    sizes = assign_subsets(factory.manifest(), 2, 0).value_counts().sort_index()
    assert factory.shown("scores")["images of each subset"] == ", ".join(str(size) for size in sizes)
    assert load_params(factory.root / "params.yaml").scenario(LINE).dataset == LINE
    assert Model.load(factory.root / "data" / "detector" / LINE / "llbnad.safetensors")
    assert factory.statuses("drift", ["drift", "control_chart"]) == dict.fromkeys(["drift", "control_chart"], "SKIPPED")
    assert factory.shown("drift")["check drift"] == "skipped: no earlier batch to compare with"
    assert (factory.champion(), factory.versions()) == ("1", ["1"])
    assert factory.statuses("challenger", ["agreement"]) == {"agreement": "SKIPPED"}
    assert factory.shown("challenger")["check agreement"].startswith("skipped: there is no champion")
    assert "look at the suspects before you trust it" in factory.shown("challenger")["advice"]
    said = json.loads((factory.root / "data/evaluation" / LINE / "metrics.json").read_text())["sensitivity_line"]
    assert "kept images that a detector trained on the other" in said  # this one learnt every kept image
    assert said[1:] in factory.card("1")
    assert (factory.root / "data/evaluation" / LINE / "plots/sensitivity.png").exists()
    params = factory.root / "params.yaml"  # the other days are of other things
    params.write_text(params.read_text().replace("sensitivity: {images: 12,", "sensitivity: {images: 0,"))
    factory.assert_nothing_is_lost()


def day_2(factory: Factory) -> None:
    """More images, some broken, some known: only new ones meet the encoder, and the subsets of so few are equal again;
    people judged two images, and that overrides the policy."""
    training = factory.root / "data" / "purified" / LINE
    scores = pd.read_parquet(training / "scores.parquet").set_index("image_id")["score"]
    defect = scores[[file_digest(path) for path in factory.cells["bad"][:3]]].idxmax()
    kept = pd.read_parquet(training / "kept.parquet")["image_id"]
    excluded = scores[kept].idxmin()  # a normal one, as the policy sees it
    review = factory.root / "data" / "review" / f"{LINE}.csv"
    review.write_text(f"image_id,verdict\n{defect},defect\n{excluded},exclude\n")
    for number, path in enumerate(factory.cells["good"][20:34]):
        factory.deliver(f"cell {number}.png", path.read_bytes())
    for number, path in enumerate(factory.cells["good"][:4]):
        factory.deliver(f"again/{number}.png", path.read_bytes())
    factory.deliver("broken.png", factory.cells["good"][50].read_bytes()[:300])
    factory.deliver("empty.png", b"")
    run = factory.tick_until_run(2)
    assert run.status == dg.DagsterRunStatus.SUCCESS
    assert (run.job_name, run.tags["dagster/run_key"].split("-")[:2]) == ("retrain", [LINE, "2"])
    taken = factory.shown("ingest")
    assert (taken["new images"], taken["quarantined"], taken["duplicates"], taken["batch"]) == (14, 2, 4, 2)
    features = factory.shown("features")
    assert (features["images encoded"], features["images found in the cache"]) == (14, 21)
    scores = pd.read_parquet(factory.root / "data" / "scores" / LINE / "scores.parquet")
    subsets = scores.set_index("image_id")["subset"]
    assert sorted(subsets.value_counts()) == [17, 18]
    assert subsets.to_dict() == assign_subsets(factory.manifest(), 2, 0).to_dict()
    check = factory.check("drift", "drift")
    assert check.passed and check.description.startswith("batch 2: no drift: 14 images are like the 21 known")
    assert defect in pd.read_parquet(training / "rejected.parquet")["image_id"].tolist()
    sets = pd.read_parquet(factory.root / "data" / "detector" / LINE / "training_sets.parquet")
    assert excluded not in set(sets["image_id"])
    assert defect not in set(sets["image_id"][sets["method"] == "llbnad"])
    assert (factory.champion(), factory.versions()) == ("2", ["2", "1"])
    reason = json.loads((factory.root / "data/quarantine" / LINE / "broken.png.json").read_text())
    assert reason["reason"] == "unreadable" and "broken.png is damaged" in reason["detail"]
    factory.assert_nothing_is_lost()


def day_3(factory: Factory) -> None:
    """The lamp is failing: people are warned; the detector that learnt it as normal is refused."""
    for number, path in enumerate(factory.cells["good"][34:54]):
        with Image.open(path) as image:
            stream = io.BytesIO()
            image.point(lambda value: value * 0.5).save(stream, "png")
        factory.deliver(f"dark {number}.png", stream.getvalue())
    run = factory.tick_until_run(3)
    assert run.status == dg.DagsterRunStatus.SUCCESS  # a refusal is no crash; a tag says so in the list of runs
    with factory.instance() as instance:
        assert instance.get_run_by_id(run.run_id).tags["refused"] == "shift"
    assert factory.shown("features")["images encoded"] == 20
    check = factory.check("drift", "drift")
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "batch 3: " in check.description and "brightness has changed" in check.description
    assert check.metadata["history (picture)"].value.startswith("![history](/logs/pictures/")
    refusal = factory.check("challenger", "shift")
    assert (refusal.passed, refusal.severity, refusal.blocking) == (False, dg.AssetCheckSeverity.ERROR, False)
    assert "newly learnt as normal differ" in refusal.description and "brightness by" in refusal.description
    assert "call them normal in the review file, or promote by hand" in refusal.description
    others = factory.statuses("challenger", [one for one in CHECKS if one != "shift"])
    skipped = {name for name, status in others.items() if status == "SKIPPED"}
    assert skipped <= {"separation", "labelled", "sensitivity"}
    assert all(status == "SUCCEEDED" for name, status in others.items() if name not in skipped)
    assert all(str(factory.shown("challenger")[f"check {name}"]).startswith("skipped: ") for name in skipped)
    verdicts = factory.check("challenger", "verdicts").metadata["observed"].value
    assert verdicts == "calls 0 of 1 images normal that people called defects"
    assert (factory.champion(), factory.versions()) == ("2", ["3", "2", "1"])
    assert factory.refused("3").startswith("shift: ") and factory.refused("2") is None
    factory.assert_nothing_is_lost()
    assert f"{LINE}: 0 of the {ENOUGH} new images" in factory.tick("nightly")  # a refused detector has seen them


def day_4(factory: Factory) -> None:
    """People have looked: the dark images are normal. The same detector may follow now."""
    dark = [image_id for image_id, batch in batches(factory.root, LINE).items() if batch == 3]
    with (factory.root / "data" / "review" / f"{LINE}.csv").open("a") as review:
        review.writelines(f"{image_id},normal\n" for image_id in dark)
    done = command(factory.root, ["python", "-m", "orchestration", "registry", "challenge", LINE])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "note: the detector is older than the settings, code or data: " in done.stdout  # verdicts wait for a run
    assert (factory.champion(), factory.refused("3")) == ("2", None)


def test_days_of_a_line(factory):
    day_1(factory)
    factory.stop()
    day_2(factory)
    day_3(factory)
    day_4(factory)
