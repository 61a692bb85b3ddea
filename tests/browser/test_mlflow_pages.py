"""MLflow's pages in a real Chromium: what a person sees of the experiment, of a run and of a registered version."""

import os
import signal
import socket
import subprocess

import pytest
from mlflow import MlflowClient

from orchestration.commands.ui import _own_pages
from orchestration.tracking.server import page
from tests.browser.test_review_page import browser  # noqa: F401  a fixture
from tests.pipeline.conftest import by_dagster, dagster_copy, environment, wait_for, warm_programs  # noqa: F401
from tests.pipeline.test_serving import wait_for as wait_for_server

LINE = "noisy20"


@pytest.fixture
def pages(browser, dagster_copy):  # noqa: F811
    """The address of MLflow's pages, started as `make ui` starts them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = dagster_copy / "server.log"
    with log.open("w") as stream:
        server = subprocess.Popen(
            ["mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", *_own_pages(),
             "--backend-store-uri", f"sqlite:///{dagster_copy}/mlflow/mlflow.db",
             "--artifacts-destination", (dagster_copy / "mlflow" / "artifacts").as_uri()],
            cwd=dagster_copy, env=environment(dagster_copy, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"),
            stdout=stream, stderr=stream, start_new_session=True,
        )  # fmt: skip
    try:
        wait_for_server(f"http://127.0.0.1:{port}/health", server, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)


def test_experiment_run_and_version_say_what_they_are(pages, browser, dagster_copy):  # noqa: F811
    client = MlflowClient(f"sqlite:///{dagster_copy}/mlflow/mlflow.db")
    version = client.get_model_version(f"llbnad-{LINE}", "1")
    run = client.get_run(version.run_id)

    def seen():
        return browser.execute_script("return document.body.innerText")

    def shows(*texts):
        return wait_for(lambda: all(text in seen() for text in texts), 20)

    browser.get(page(pages, "experiments", run.info.experiment_id, "runs"))
    assert shows(run.info.run_name, "image_auroc_none", "selection.policy"), (
        seen()
    )  # the columns, and no chat over them
    assert "Ask questions about" not in seen()  # the panel of the chat
    assert run.info.run_name.startswith(f"{LINE} mad v1")

    browser.get(page(pages, "experiments", run.info.experiment_id, "runs", run.info.run_id))
    trained_on = ("everything (none)", "what mad kept (llbnad)", "true normals only (oracle)",
                  "as many, drawn blindly (random)")  # fmt: skip
    assert shows(run.info.run_name, *trained_on, f"{run.data.metrics['image_auroc_oracle']:.3f}"), seen()
    loaded = "return [...document.querySelectorAll(`img[src*='get-artifact']`)].map(one => one.naturalWidth > 100)"
    assert wait_for(lambda: (found := browser.execute_script(loaded)) and all(found), 20)  # the pictures of the run
    address = "return [...document.links].find(one => one.innerText === 'charts of their metrics')?.href"
    browser.get(browser.execute_script(address))
    assert shows("Model metrics", "fpr_at_threshold", run.info.run_name), seen()

    browser.get(page(pages, "models", version.name, "versions", "1"))
    assert shows("Detector patchcore on efficientnet_lite2 at 64 px.", "spread passed: ", "champion"), seen()
