"""MLflow's server as `make ui` starts it: its first page chooses machine learning, everything else is MLflow's own."""

import tomllib

from fastapi.testclient import TestClient

from tests.conftest import REPOSITORY


def test_the_first_page_chooses_machine_learning_before_its_scripts_run():
    from orchestration.tracking.pages_app import CHOICE, app  # a second of imports

    client = TestClient(app, base_url="http://127.0.0.1")
    page = client.get("/")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    assert 0 < page.text.index(CHOICE) < page.text.index("<script defer")  # MLflow's own come after it
    assert '<div id="root"' in page.text
    assert client.get("/version").text.count(".") == 2
    assert client.get("/static-files/static/js/none.js").status_code == 404


def test_the_server_is_registered_under_the_name_that_the_ui_asks_for():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["mlflow.app"] == {"llbnad": "orchestration.tracking.pages_app:app"}
