"""Every configuration file of cluster/ loads, and says nothing that holds on one machine only."""

import shutil

import dagster as dg
import pytest
import yaml
from dagster_celery.launcher import CeleryRunLauncher
from typer.testing import CliRunner

from orchestration.__main__ import application
from orchestration.pipeline.cluster import cluster_environment
from tests.conftest import REPOSITORY

CELERY, K8S = REPOSITORY / "cluster" / "celery", REPOSITORY / "cluster" / "k8s"
VARIABLES = ("LLBNAD_DAGSTER_DB", "LLBNAD_BROKER", "LLBNAD_RESULTS")


@pytest.fixture
def variables(monkeypatch, database):
    for name, value in zip(VARIABLES, (database, "redis://home:6379/0", "redis://home:6379/1"), strict=True):
        monkeypatch.setenv(name, value)


def test_the_instance_loads_and_stores_a_run_in_postgresql(variables, tmp_path):
    shutil.copy(CELERY / "dagster.yaml", tmp_path)
    run = dg.DagsterRun(job_name="train", tags={"dagster/partition": "bottle"})
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert isinstance(instance.run_launcher, CeleryRunLauncher)
        assert instance.run_launcher.broker == "redis://home:6379/0"
        assert instance.run_retries_enabled and instance.run_monitoring_enabled
        assert instance.run_monitoring_max_resume_run_attempts == 0
        instance.add_run(run)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.get_run_by_id(run.run_id).tags["dagster/partition"] == "bottle"


def test_no_configuration_holds_a_path_or_a_password():
    for file in [*CELERY.glob("*.yaml"), *K8S.glob("*.yaml")]:
        assert str(REPOSITORY) not in file.read_text()
    (location,) = yaml.safe_load((CELERY / "workspace.yaml").read_text())["load_from"]
    module = {"module_name": "orchestration.definitions", "working_directory": ".", "location_name": "llbnad"}
    assert location == {"python_module": module}
    dagster = yaml.safe_load((CELERY / "dagster.yaml").read_text())
    assert set(dagster["storage"]["postgres"]["postgres_url"]) == {"env"}


def test_the_environment_of_a_machine_is_the_folder(variables):
    assert cluster_environment(CELERY)["DAGSTER_HOME"] == str(CELERY)


@pytest.mark.parametrize(
    ("queue", "machine", "said"),
    [
        ("gpu", None, "--queue gpu needs LLBNAD_MACHINE"),
        ("home", "/data/llbnad", "unset LLBNAD_MACHINE"),
        ("dagster,home", None, "serves home alone"),
    ],
)
def test_a_worker_has_a_folder_of_its_own_and_home_has_none(variables, queue, machine, said, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.delenv("LLBNAD_MACHINE", raising=False)
    if machine:
        monkeypatch.setenv("LLBNAD_MACHINE", machine)
    done = CliRunner().invoke(application("worker"), ["worker", "--queue", queue])
    assert done.exit_code != 0 and said in str(done.exception)


@pytest.mark.parametrize("command", ["worker", "ui"])
@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("cluster/celery", "needs LLBNAD_BROKER, LLBNAD_DAGSTER_DB, LLBNAD_RESULTS"),
        ("docs", "has no dagster.yaml"),
    ],
)
def test_what_is_missing_is_said_before_anything_starts(command, folder, said, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    done = CliRunner().invoke(application(command), [command, "--cluster", folder])
    assert done.exit_code != 0 and said in str(done.exception)
