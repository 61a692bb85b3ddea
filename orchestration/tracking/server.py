"""Which MLflow server there is and how to talk to it: the embedded default, or the one MLFLOW_TRACKING_URI names."""

import os
import re
from pathlib import Path

MLFLOW_FOLDER = Path("mlflow")  # database, artifacts, links and reports of the embedded default
LOCAL_UI = "LLBNAD_MLFLOW_UI"  # environment variable: where `make ui` has put the embedded default's pages
USUAL_UI = "http://127.0.0.1:5000"

ENVIRONMENT = {  # a server that is down must be noticed in seconds, and nothing is sent home
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def prepare_environment(**others: str) -> None:
    """Set `ENVIRONMENT`, with `others` over it, where the user has set nothing; call it before mlflow is imported."""
    for name, value in {**ENVIRONMENT, **others}.items():
        os.environ.setdefault(name, value)


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, or the embedded SQLite database."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{MLFLOW_FOLDER.absolute() / 'mlflow.db'}"


def is_http(uri: str) -> bool:
    """Whether it is a server's address: else it is a database here."""
    return uri.startswith(("http://", "https://"))


def pages(uri: str) -> str:
    """Address of the web pages that show what is recorded at `uri`."""
    return without_password(uri, "").rstrip("/") if is_http(uri) else os.environ.get(LOCAL_UI, USUAL_UI)


def without_password(text: str, mask: str = "***@") -> str:
    """Return `text` with `mask` in the place of the user and password of each address in it."""
    return re.sub(r"//[^/@\s]*@", f"//{mask}", text)
