"""The sensor and the schedule decide by the files that are there; every refusal has a reason."""

import asyncio
import json
import os
import shutil
from datetime import UTC, datetime

import dagster as dg
import pytest
from dagster._core.execution.stats import StepEventStatus
from dagster._core.loader import LoadingContextForTest

from llbnad.purification.partition import assign_subsets
from orchestration.assets import sensors
from orchestration.assets.outside_run import EARLIER_NAME, end_earlier_runs, report_checks
from orchestration.assets.registry_assets import tell_challenger
from orchestration.assets.retraining import follow_params, run_in_progress
from orchestration.assets.sensors import evaluate
from orchestration.definitions import definitions
from orchestration.line.ingest import ingest
from orchestration.line.lines import new_images
from orchestration.pipeline.params import ArrivalSettings, load_params
from tests.conftest import REPOSITORY, made_manifest, save_image
from tests.pipeline.test_ingest import unversioned

FEW = ArrivalSettings(stable_seconds=0, min_new_images=4)


@pytest.fixture
def root(tmp_path):
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    (tmp_path / ".dvc" / "tmp").mkdir(parents=True)
    return tmp_path


def arrive(root, numbers, line="bottle"):
    for number in numbers:
        save_image(root / "data" / "incoming" / line / f"{number}.png", number, (8, 8))


class Sensor:
    """Evaluations one after the other, as the daemon does them."""

    def __init__(self, root, settings=FEW):
        self.root, self.settings, self.cursor, self.running = root, settings, None, None

    def look(self, line="bottle"):
        decisions = evaluate(self.root, self.settings, self.cursor, lambda line: self.running)
        self.cursor = json.dumps({name: decision.asked for name, decision in decisions.items()})
        return decisions[line]


def test_enough_complete_files_start_one_run(root):
    sensor = Sensor(root)
    arrive(root, range(3))
    assert sensor.look().reason == "3 of the 4 new files it takes"
    arrive(root, [3])
    key = sensor.look().run_key
    assert key.startswith("bottle-1-")
    assert "the run asked for did not take them in" in sensor.look().reason
    arrive(root, [4])  # a new reason to try
    assert sensor.look().run_key not in (None, key)


def test_a_fixed_data_set_has_taken_in_what_there_is(root):
    """Else Dagster's dialog of `run_scenario`, which leaves `ingest` out, warns that data is missing."""
    arrive(root, range(2))
    params = load_params(root / "params.yaml")
    wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey("ingest"))
    with dg.instance_for_test() as instance:
        for _ in range(2):  # told once
            assert follow_params(instance, root, params) == []
            told = instance.fetch_materializations(wanted, limit=10).records
            events = [record.asset_materialization for record in told]
            assert {event.partition for event in events} == {*params.scenarios} and len(events) == 2
        assert {event.metadata["outcome"].value for event in events} == {"no production line"}
        assert set(instance.get_dynamic_partitions("scenario")) == {*params.scenarios, "bottle"}


def test_a_run_of_what_was_made_outside_keeps_no_line_waiting():
    """Neither when it was told, nor when telling it broke in the middle."""
    with dg.instance_for_test() as instance:
        sound = dg.AssetCheckResult(passed=True, asset_key="raw", check_name="manifest")
        report_checks(instance, "bottle", [(sound, True)], "make run", "bottle: raw")
        with pytest.raises(AssertionError):
            report_checks(instance, "bottle", [(dg.AssetCheckResult(passed=True), True)], "make run", "bottle: raw")
        broken, told = instance.get_run_records()  # newest first
        assert run_in_progress(instance, "bottle") is None
        # without a plan, Dagster's page of a run is an error
        plan = instance.get_execution_plan_snapshot(told.dagster_run.execution_plan_snapshot_id)
        (step,) = instance.get_run_step_stats(told.dagster_run.run_id)
    assert plan.step_keys_to_execute == [step.step_key] and step.status == StepEventStatus.SUCCESS
    assert (broken.dagster_run.status, told.dagster_run.status) == (
        dg.DagsterRunStatus.FAILURE,
        dg.DagsterRunStatus.SUCCESS,
    )
    assert told.start_time <= told.end_time


def test_runs_of_an_earlier_release_end_when_they_were_made():
    """Dagster's pages say "Starting…" of a run without a beginning."""
    with dg.instance_for_test() as instance:
        for number in range(2):
            run = dg.DagsterRun(job_name=EARLIER_NAME, run_id=f"{number:032x}", status=dg.DagsterRunStatus.SUCCESS)
            instance.add_run(run)
        instance.add_run(dg.DagsterRun(job_name="retrain", run_id="f" * 32, status=dg.DagsterRunStatus.STARTED))
        assert (end_earlier_runs(instance), end_earlier_runs(instance)) == (2, 0)
        (other, *ended) = instance.get_run_records()
        for one in ended:
            assert one.dagster_run.status == dg.DagsterRunStatus.SUCCESS
            assert one.start_time == one.end_time == pytest.approx(one.create_timestamp.timestamp())
        assert (other.dagster_run.status, other.start_time) == (dg.DagsterRunStatus.STARTED, None)


def test_checks_made_outside_are_of_the_newest_materialisation_and_a_promotion_reaches_the_challenger():
    """By Dagster's own rule, after which it shows a check as evaluated or not."""
    with dg.instance_for_test() as instance:

        def shown(asset, check):
            key = dg.AssetCheckKey(dg.AssetKey(asset), check)
            record = instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
            return asyncio.run(record.targets_latest_materialization(LoadingContextForTest(instance)))

        def made(asset, **metadata):
            return dg.AssetMaterialization(
                asset, partition="bottle", metadata=metadata, tags={"dagster/data_version": "a"}
            )

        instance.report_runless_asset_event(made("raw"))
        sound = dg.AssetCheckResult(passed=True, asset_key="raw", check_name="manifest")
        report_checks(instance, "bottle", [(sound, True)], "make run", "bottle: raw")  # within the same second
        assert shown("raw", "manifest")
        judged = dg.AssetCheckResult(passed=True, asset_key="challenger", check_name="spread")
        first = made("challenger", version="2", champion="none yet", next="promote it", threshold="0.7")
        report_checks(instance, "bottle", [(judged, False)], "registry", "bottle: challenger", first)
        tell_challenger(instance, "bottle", "2")
        wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey("challenger"), asset_partitions=["bottle"])
        (now, _) = instance.fetch_materializations(wanted, limit=9).records
        said = {name: entry.value for name, entry in now.asset_materialization.metadata.items()}
        nothing = "nothing: version 2 is champion"
        assert said == {"version": "2", "champion": "2", "next": nothing, "threshold": "0.7"}
        assert now.asset_materialization.tags["dagster/data_version"] == "a" and shown("challenger", "spread")
        key = dg.AssetCheckKey(dg.AssetKey("challenger"), "spread")
        (of_partition,) = instance.event_log_storage.get_asset_check_partition_info([key])
        assert of_partition.is_current and of_partition.partition_key == "bottle"
        tell_challenger(instance, "bottle", "2")  # no news
        assert len(instance.fetch_materializations(wanted, limit=9).records) == 2


def test_run_key_is_of_the_contents_and_the_batch(root):
    def key(names, first=0):
        shutil.rmtree(root / "data" / "incoming", ignore_errors=True)
        for number, name in enumerate(names):
            save_image(root / "data" / "incoming" / "bottle" / name, first + number, (8, 8))
        return Sensor(root).look().run_key

    one = key(["a.png", "b.png", "c.png", "d.png"])
    assert key(["e.png", "f.png", "g.png", "h.png"]) == one
    assert key(["a.png", "b.png", "c.png", "d.png"], first=1) != one
    key(["a.png", "b.png", "c.png", "d.png"])
    ingest(root, "bottle", 0, unversioned)
    # the same bytes once more are doubles that somebody has to report: not the run that was
    assert key(["a.png", "b.png", "c.png", "d.png"]) not in (None, one)


def test_files_already_seen_are_neither_read_nor_looked_at_while_a_run_is_on(root, monkeypatch):
    read, looked = [], []
    digest, look = sensors.file_digest, sensors.look
    monkeypatch.setattr(sensors, "file_digest", lambda path: read.append(path) or digest(path))
    monkeypatch.setattr(sensors, "look", lambda path: looked.append(path) or look(path))
    monkeypatch.setattr(sensors, "HASHED_FILES", 5)
    arrive(root, range(12))
    sensor = Sensor(root, ArrivalSettings(stable_seconds=0, min_new_images=13))
    assert sensor.look().reason == "12 of the 13 new files it takes"
    assert read == []
    sensor.settings = FEW
    assert sensor.look().run_key
    assert len(read) == 5  # a run key needs no more, however many there are
    for _ in range(3):
        assert not sensor.look().run_key
    assert len(read) == 5
    looked.clear()
    sensor.running = "run 12345678 of it is started"
    assert sensor.look().reason == sensor.running
    assert looked == []
    sensor.running = None
    assert "did not take them in" in sensor.look().reason  # what was remembered is remembered still


def test_files_touched_a_moment_ago_are_not_complete(root):
    arrive(root, range(4))
    for number in range(4):
        os.utime(root / f"data/incoming/bottle/{number}.png", (0, 0))  # as `cp -p` does
    slow = Sensor(root, ArrivalSettings(stable_seconds=3600, min_new_images=4))
    assert slow.look().reason == "0 of the 4 new files it takes; 4 files are not complete yet"


def test_impossible_names_are_told(root):
    arrive(root, range(4), "no line")
    assert "rename the folder" in Sensor(root).look("no line").reason


def test_sensor_in_dagster_adds_the_partition_and_asks_for_the_job(root):
    settings = root / "params.yaml"
    settings.write_text(settings.read_text().replace("stable_seconds: 10", "stable_seconds: 0"))
    defs = definitions(REPOSITORY)
    arrive(root, range(20), "cap")
    arrive(root, range(20), "elpv_mono")
    sensor = sensors.arrival_sensor(root, load_params(settings).arrival, "retrain")
    repository = defs.get_repository_def()
    with dg.instance_for_test() as instance:
        result = sensor(dg.build_sensor_context(instance, repository_def=repository))
        (request,) = result.run_requests
        assert request.partition_key == "cap" and sensor.job_name == "retrain"
        assert "cap" in instance.get_dynamic_partitions("scenario")
        assert "elpv_mono_a20" in instance.get_dynamic_partitions("scenario")

        run = dg.DagsterRun(job_name="retrain", run_id="1" * 32, status=dg.DagsterRunStatus.STARTING,
                            tags={"dagster/partition": "cap"})  # fmt: skip
        instance.add_run(run)
        context = dg.build_sensor_context(instance, result.cursor, repository_def=repository)
        reason = sensor(context).skip_reason.skip_message
        assert "cap: run 11111111 of it is starting" in reason
        assert "elpv_mono: params.yaml gives the name elpv_mono to the dataset with root constraints.txt" in reason
        assert run_in_progress(instance, "bottle") is None


def test_schedule_retrains_what_no_training_has_seen(root):
    defs = definitions(REPOSITORY)
    from orchestration.assets.schedules import retraining_schedule

    schedule = retraining_schedule(root, load_params(root / "params.yaml").arrival, "retrain")
    with dg.instance_for_test() as instance:

        def night():
            context = dg.build_schedule_context(
                instance, datetime(2025, 1, 1, 2, tzinfo=UTC), repository_def=defs.get_repository_def()
            )
            return schedule.evaluate_tick(context)

        assert "there is no production line" in night().skip_message
        arrive(root, range(12))
        ingest(root, "bottle", 0, unversioned)  # by hand: the sensor sees none of them
        assert night().skip_message == "bottle: 12 of the 20 new images it takes"
        arrive(root, range(12, 20))
        assert new_images(root, "bottle") == 20
        (request,) = night().run_requests
        assert request.partition_key == "bottle" and request.run_key.startswith("bottle-2025-01-01")
        instance.add_run(dg.DagsterRun(job_name="retrain", run_id="2" * 32, status=dg.DagsterRunStatus.STARTED,
                                       tags={"dagster/partition": "bottle"}))  # fmt: skip
        assert night().skip_message == "bottle: run 22222222 of it is started"


def test_both_go_through_the_same_job_that_takes_in_first():
    repository = definitions(REPOSITORY).get_repository_def()
    assert repository.get_sensor_def("arrivals").job_name == "retrain"
    assert repository.get_schedule_def("nightly").job_name == "retrain"
    keys = {key.to_user_string() for key in repository.get_job("retrain").asset_layer.executable_asset_keys}
    assert {"ingest", "raw", "evaluation", "drift", "champion"} <= keys


def test_an_image_keeps_its_subset_when_others_arrive():
    day_1, day_2 = made_manifest(150, 0), made_manifest(300, 0)  # from 100 on: fewer are dealt out evenly
    before, after = assign_subsets(day_1, 3, 0), assign_subsets(day_2, 3, 0)
    assert after[before.index].equals(before)
    assert len(after) == 300
