"""The address of the MLflow server: the embedded database, or the server that MLFLOW_TRACKING_URI names."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MLFLOW_FOLDER = Path("mlflow")  # database, artifacts, links and reports of the embedded default
LOCAL_UI = "LLBNAD_MLFLOW_UI"  # environment variable with the address of the pages that `make ui` serves
LAST_UI = MLFLOW_FOLDER / "ui_address.txt"  # the same, of the last `ui`: for commands in a terminal beside it
USUAL_UI = "http://127.0.0.1:5000"

ENVIRONMENT = {  # a server that is down must be noticed in seconds, and nothing is sent home
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # a bar per file, also where no terminal is: in Dagster's log
}


def prepare_environment(**others: str) -> None:
    """Set the variables of `ENVIRONMENT` and `others`, except variables that the user has set.

    Call this before mlflow is imported.
    """
    for name, value in {**ENVIRONMENT, **others}.items():
        os.environ.setdefault(name, value)


def tracking_uri() -> str:
    """Return MLFLOW_TRACKING_URI, or the address of the embedded SQLite database."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{MLFLOW_FOLDER.absolute() / 'mlflow.db'}"


def is_http(uri: str) -> bool:
    """Return whether `uri` is the address of a server. Other addresses are local databases."""
    return uri.startswith(("http://", "https://"))


def pages(uri: str) -> str:
    """Return the address of the web pages that show the records at `uri`."""
    if is_http(uri):
        return without_password(uri, "").rstrip("/")
    return os.environ.get(LOCAL_UI) or _last_ui() or USUAL_UI


def page(uri: str, *place: str) -> str:
    """Return the address of one page of the records at `uri`, such as `page(uri, "experiments", "1")`.

    Without the workflow, the pages take every experiment for one of language models.
    """
    return f"{pages(uri)}/#/{'/'.join(place)}?workflowType=machine_learning"


def run_page(link: Mapping[str, Any]) -> str:
    """Return the address of a run's page. Pages served here may have another port than when the run was recorded.

    Args:
        link: content of a scenario's link file (`orchestration.tracking.scenario_run.link_path`).
    """
    if is_http(tracking_uri()):
        return str(link["url"])
    return page(tracking_uri(), "experiments", link["experiment_id"], "runs", link["run_id"])


def _last_ui() -> str:
    try:
        return LAST_UI.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def without_password(text: str, mask: str = "***@") -> str:
    """Return `text` with `mask` instead of the user and password in each address."""
    return re.sub(r"//[^/@\s]*@", f"//{mask}", text)
