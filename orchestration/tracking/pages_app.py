"""MLflow's server whose pages open as machine learning. `mlflow server --app-name llbnad` starts it.

MLflow 3 shows every experiment as one of language models, whatever its tag `mlflow.experimentKind` says, until the
browser has chosen otherwise. The first page of this server makes that choice for a browser that has made none.
"""

from pathlib import Path

import mlflow.server
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from mlflow.server.fastapi_app import app

CHOICE = """<script>
  const key = "mlflow.workflowType_v1";
  if (localStorage.getItem(key) === null) localStorage.setItem(key, '"machine_learning"');
</script>"""


def first_page() -> HTMLResponse:
    """Return MLflow's page with the choice before its scripts."""
    content = Path(str(mlflow.server.app.static_folder), "index.html").read_text(encoding="utf-8")
    return HTMLResponse(content.replace("<head>", f"<head>{CHOICE}", 1))


app.router.routes.insert(0, APIRoute("/", first_page, methods=["GET"]))  # before the mount of all other pages
