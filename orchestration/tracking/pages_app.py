"""MLflow's server whose pages open as machine learning. `mlflow server --app-name llbnad` starts it.

MLflow 3 shows every experiment as one of language models, whatever its tag `mlflow.experimentKind` says, until the
browser has chosen otherwise. Its list of runs has no metric, and a chat about them covers a third of the first page.
The first page of this server chooses better for a browser that has chosen nothing yet: what a person changes stays.
"""

import json
from pathlib import Path

import mlflow.server
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from mlflow.server.fastapi_app import app

from orchestration.tracking.experiment import EXPERIMENT

COLUMNS = [  # of the list of runs, beside their names, times and durations; MLflow orders them by name
    "params.`selection.policy`",
    "params.`detector.name`",
    *(f"metrics.`{name}`" for name in ("image_auroc", "image_auroc_none", "image_auroc_oracle", "kept_share",
                                       "fpr_at_threshold", "recall_at_threshold", "train_contamination_after")),
]  # fmt: skip
CHOICE = """<script>{
  const choose = (key, value) => {
    if (localStorage.getItem(key) === null) localStorage.setItem(key, JSON.stringify(value));
  };
  choose("mlflow.workflowType_v1", "machine_learning");
  choose("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", true);
  const asked = new XMLHttpRequest();
  asked.open("GET", "ajax-api/2.0/mlflow/experiments/get-by-name?experiment_name=EXPERIMENT", false);
  try {  // no experiment yet: the next visit chooses
    asked.send();
    const ids = JSON.stringify([JSON.parse(asked.responseText).experiment.experiment_id]);
    choose(`MLflowLocalStorage-1.1-ExperimentPage-${ids}-ReactComponentState`, {selectedColumns: COLUMNS});
  } catch {}
}</script>""".replace("EXPERIMENT", EXPERIMENT).replace("COLUMNS", json.dumps(COLUMNS))


def first_page() -> HTMLResponse:
    """Return MLflow's page with the choices before its scripts."""
    content = Path(str(mlflow.server.app.static_folder), "index.html").read_text(encoding="utf-8")
    return HTMLResponse(content.replace("<head>", f"<head>{CHOICE}", 1))


app.router.routes.insert(0, APIRoute("/", first_page, methods=["GET"]))  # before the mount of all other pages
