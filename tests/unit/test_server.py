"""The MLflow server's address: variables that users have set stay, and no password is shown."""

import os

import pytest

from orchestration.tracking import server


@pytest.fixture
def environment(monkeypatch):
    for name in (*server.ENVIRONMENT, "MLFLOW_TRACKING_URI", server.LOCAL_UI):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    return os.environ


def test_what_the_user_has_set_stays(environment):
    environment["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "9"
    server.prepare_environment(MLFLOW_HTTP_REQUEST_TIMEOUT="120")
    assert environment["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "9"
    assert environment["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "120"
    server.prepare_environment()
    assert environment["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "120" and environment["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_passwords_are_masked_wherever_they_stand():
    text = "GET https://user:secret@host:5000/api failed, nor did postgresql://me:p%40ss@db/x"
    assert server.without_password(text) == "GET https://***@host:5000/api failed, nor did postgresql://***@db/x"
    assert server.without_password("https://host/a@b") == "https://host/a@b"


def test_pages_are_the_server_s_or_those_of_make_ui(environment, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert server.pages("https://user:secret@host/mlflow/") == "https://host/mlflow"
    assert server.pages(server.tracking_uri()) == server.USUAL_UI
    server.LAST_UI.parent.mkdir()
    server.LAST_UI.write_text("http://127.0.0.1:5002\n")  # as the last `ui` left it: a terminal has no variable
    assert server.pages(server.tracking_uri()) == "http://127.0.0.1:5002"
    environment[server.LOCAL_UI] = "http://127.0.0.1:5001"
    assert server.pages(server.tracking_uri()) == "http://127.0.0.1:5001"
    link = {"run_id": "r", "experiment_id": "1", "url": "http://127.0.0.1:5000/#/recorded/then"}
    assert server.run_page(link) == "http://127.0.0.1:5001/#/experiments/1/runs/r?workflowType=machine_learning"
    environment["MLFLOW_TRACKING_URI"] = "https://host"
    assert server.run_page(link) == link["url"]
