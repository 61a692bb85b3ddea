"""The files for Kubernetes and Docker are well formed and agrees with the rest. Neither is run here."""

import os
import re
import shutil
import subprocess

import dagster as dg
import pytest
import yaml
from dagster_k8s import K8sRunLauncher
from dagster_k8s.job import UserDefinedDagsterK8sConfig
from kubernetes.client import V1Container, V1JobSpec, V1PodSpec

from orchestration.assets.lost_runs import end_lost_runs
from orchestration.assets.machines import has_several_machines
from orchestration.pipeline.cluster import variables_of
from tests.conftest import REPOSITORY

CLUSTER = REPOSITORY / "cluster"
CHART = "LLBNAD_DAGSTER_CHART"  # a folder or file with Dagster's chart; no test loads it from the network
KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "none", "cluster": {"server": "https://127.0.0.1:1"}}],
    "users": [{"name": "none", "user": {}}],
    "contexts": [{"name": "none", "context": {"cluster": "none", "user": "none"}}],
    "current-context": "none",
}


def load(name: str):
    return yaml.safe_load((CLUSTER / name).read_text())


def snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])[A-Z]", lambda found: f"_{found[0].lower()}", name)


def run_config() -> dict:
    """Return what the chart hands to the launcher as run_k8s_config."""
    values = load("k8s/values.yaml")["runLauncher"]["config"]["k8sRunLauncher"]["runK8sConfig"]
    return {snake(key): value for key, value in values.items()}


def test_kubernetes_launcher_takes_the_values_and_watches_its_own_runs(tmp_path):
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(KUBECONFIG))
    launcher = {
        "module": "dagster_k8s",
        "class": "K8sRunLauncher",
        "config": {
            "service_account_name": "dagster",
            "instance_config_map": "dagster-instance",
            "dagster_home": "/opt/dagster/dagster_home",
            "load_incluster_config": False,
            "kubeconfig_file": str(tmp_path / "kubeconfig"),
            "run_k8s_config": run_config(),
        },
    }
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump({"run_launcher": launcher}))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert isinstance(instance.run_launcher, K8sRunLauncher) and has_several_machines(instance)
        assert end_lost_runs(instance) == []


@pytest.mark.parametrize("config", [run_config(), load("k8s/gpu.yaml")], ids=["values.yaml", "gpu.yaml"])
def test_kubernetes_knows_every_key(config):
    known = {"container_config": V1Container, "pod_spec_config": V1PodSpec, "job_spec_config": V1JobSpec}
    read = UserDefinedDagsterK8sConfig.from_dict(config)
    for part, kind in known.items():
        assert set(getattr(read, part)) <= set(kind.attribute_map), part


def test_runs_are_retried_and_not_resumed():
    daemon = load("k8s/values.yaml")["dagsterDaemon"]
    assert daemon["runRetries"]["enabled"] and daemon["runMonitoring"]["maxResumeRunAttempts"] == 0
    assert run_config()["job_spec_config"]["backoff_limit"] == 0
    limits = daemon["runCoordinator"]["config"]["queuedRunCoordinator"]["tagConcurrencyLimits"]
    assert limits == load("celery/dagster.yaml")["concurrency"]["runs"]["tag_concurrency_limits"]


def test_helm_renders_the_values():
    if shutil.which("helm") is None or not os.environ.get(CHART):
        pytest.skip(f"needs helm, and Dagster's chart at ${CHART} (helm pull dagster/dagster)")
    command = ["helm", "template", "llbnad", os.environ[CHART], "--values", str(CLUSTER / "k8s" / "values.yaml")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "K8sRunLauncher" in done.stdout


def test_compose_has_every_part_and_every_variable():
    services = load("compose.yaml")["services"]
    wanted = {"postgres", "redis", "s3", "mlflow", "webserver", "daemon", "home-worker", "worker-1", "worker-2"}
    assert wanted < set(services)
    for name, service in services.items():
        for other in service.get("depends_on", {}):
            assert other in services and other != name
        if service["image"] == "llbnad":
            assert variables_of(load("celery/dagster.yaml")) < set(service["environment"]), name
    queues = {name: str(service.get("command")).partition("--queue ")[2][:4] for name, service in services.items()}
    assert (queues["home-worker"], queues["worker-1"], queues["worker-2"]) == ("home", "dags", "dags")
    assert [name for name in services if "LLBNAD_MACHINE" in services[name].get("environment", {})] == [
        "worker-1",
        "worker-2",
    ]
    assert (CLUSTER / services["init"]["build"]["dockerfile"].removeprefix("cluster/")).is_file()
