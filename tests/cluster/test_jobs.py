"""The jobs of several machines: inboxes and promotion at home, training on workers, one after another."""

import shutil

import dagster as dg
import pytest

from llbnad.errors import DataError
from orchestration.assets.machines import has_several_machines
from orchestration.assets.registry_assets import CHALLENGER, _challenger_version
from orchestration.definitions import definitions
from tests.conftest import REPOSITORY


@pytest.fixture
def home(tmp_path, database, monkeypatch):
    """A home with the repository's own configuration; nobody asks its broker."""
    shutil.copy(REPOSITORY / "cluster" / "celery" / "dagster.yaml", tmp_path)
    for name, value in {
        "DAGSTER_HOME": str(tmp_path),
        "LLBNAD_DAGSTER_DB": database,
        "LLBNAD_BROKER": "memory://",
        "LLBNAD_RESULTS": "cache+memory://",
    }.items():
        monkeypatch.setenv(name, value)
    with dg.DagsterInstance.get() as instance:
        assert has_several_machines(instance)
        yield instance


def test_ingest_and_promotion_stay_home_and_training_goes_to_workers(home):
    repository = definitions(REPOSITORY).get_repository_def()
    jobs = {job.name: job for job in repository.get_all_jobs() if not job.name.startswith("__")}
    assert set(jobs) == {"take_in", "train", "promote", "verify"}
    keys = {
        name: {key.to_user_string() for key in jobs[name].asset_layer.executable_asset_keys}
        for name in ("take_in", "train", "promote")
    }
    assert keys["take_in"] == {"ingest"} and keys["promote"] == {"champion"}
    assert {"raw", "sub_model_0", "evaluation", "challenger", "drift"} <= keys["train"]
    assert not keys["train"] & {"ingest", "champion"}
    queues = {name: job.tags.get("dagster-celery/queue") for name, job in jobs.items()}
    assert queues == {"take_in": "home", "train": None, "promote": "home", "verify": "home"}
    assert repository.get_sensor_def("arrivals").job_name == "take_in"
    assert repository.get_schedule_def("nightly").job_name == "take_in"
    assert "elpv_mono_a00" in home.get_dynamic_partitions("scenario")


@pytest.mark.parametrize(("before", "job"), [("take_in", "train"), ("train", "promote")])
def test_a_job_that_succeeded_asks_for_the_next_one_of_its_scenario(home, before, job):
    repository = definitions(REPOSITORY).get_repository_def()
    sensor = repository.get_sensor_def(f"{job}_after_{before}")
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    for tags, wanted in (({"dagster/partition": "elpv_mono_a20"}, ["elpv_mono_a20"]), ({}, [])):
        run = dg.DagsterRun(job_name=before, tags=tags)
        event = dg.DagsterEvent("PIPELINE_SUCCESS", before)
        context = dg.build_run_status_sensor_context(sensor.name, event, home, run)
        answers = list(sensor(context))
        assert [one.partition_key for one in answers if isinstance(one, dg.RunRequest)] == wanted


def test_the_version_to_promote_is_that_of_the_newest_challenger(home):
    with pytest.raises(DataError, match="materialise challenger first"):
        _challenger_version(home, "bottle")
    for scenario, version in (("bottle", "1"), ("bottle", "2"), ("screw", "7")):
        made = dg.AssetMaterialization(CHALLENGER, metadata={"version": version}, partition=scenario)
        home.report_runless_asset_event(made)
    assert _challenger_version(home, "bottle") == "2"
