"""`make ui CLUSTER=…`: the home of several machines serves Dagster and MLflow from PostgreSQL, and ends as a whole."""

import json
import shutil
import signal
import subprocess
from urllib.request import Request, urlopen

from tests.cluster.conftest import free_port
from tests.conftest import REPOSITORY
from tests.pipeline.conftest import COLD, NOISY, environment, make_workspace, wait_for

QUERY = """
{ repositoryOrError(repositorySelector: {repositoryName: "__repository__", repositoryLocationName: "llbnad"}) {
    ... on Repository { jobs { name } sensors { name } } ... on PythonError { message } } }
"""


def test_home_serves_the_jobs_of_several_machines(database, s3, postgres, cells, tmp_path):
    folder = make_workspace(tmp_path / "workspace", {"cells": cells}, {"noisy20": NOISY})
    shutil.copytree(REPOSITORY / "cluster" / "celery", folder / "cluster" / "celery")
    dagster, mlflow = free_port(), free_port()
    variables = {
        "PYTHONPATH": str(folder),
        "LLBNAD_DAGSTER_DB": database,
        "LLBNAD_BROKER": "memory://",
        "LLBNAD_RESULTS": "cache+memory://",
        "LLBNAD_MLFLOW_DB": f"postgresql+psycopg2://{postgres}/postgres",
        "LLBNAD_MLFLOW_ARTIFACTS": f"s3://{s3}/mlflow",
    }
    ui = [COLD, "-m", "orchestration", "ui", "--cluster", "cluster/celery"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*ui, "--dagster-port", str(dagster), "--mlflow-port", str(mlflow)],
            cwd=folder, env=environment(folder, cold=True, **variables), stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip

    def served() -> dict[str, list[dict[str, str]]]:
        request = Request(
            f"http://127.0.0.1:{dagster}/graphql",
            json.dumps({"query": QUERY}).encode(),
            {"Content-Type": "application/json"},
        )
        with urlopen(request) as answer:
            return json.load(answer)["data"]["repositoryOrError"]

    def answers() -> bool:
        try:
            urlopen(f"http://127.0.0.1:{mlflow}/health").close()
            return bool(served().get("jobs"))
        except OSError:
            return False

    try:
        assert wait_for(answers, 120), (tmp_path / "log").read_text()[-5000:]
        found = served()
        assert {"take_in", "train", "promote"} < {job["name"] for job in found["jobs"]}
        assert {sensor["name"] for sensor in found["sensors"]} == {
            "arrivals",
            "train_after_take_in",
            "promote_after_train",
        }
        assert not (folder / "mlflow" / "mlflow.db").exists()  # the records are in PostgreSQL
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
    assert code == 0, (tmp_path / "log").read_text()[-5000:]
