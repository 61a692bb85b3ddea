"""The MLflow model: it loads with the inference requirements alone, answers row by row, and over HTTP."""

import base64
import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from llbnad.inference.predict import Predictor
from llbnad.model.model import Model
from orchestration.registry.packaging import contents, requirements
from tests.pipeline.conftest import COLD


@pytest.fixture(scope="module")
def images(few_cells):
    manifest, root = few_cells
    return [root / path for path in manifest["path"]]


@pytest.fixture(scope="module")
def packaged(model_files, tmp_path_factory):
    """The model as MLflow keeps it."""
    import mlflow

    folder = tmp_path_factory.mktemp("packaged") / "model"
    mlflow.pyfunc.save_model(path=str(folder), **contents(model_files["patchcore"], {}, {}))
    return folder


CLEAN = """
import importlib.abc, json, sys
FORBIDDEN = {"dagster", "dvc", "great_expectations", "orchestration"}
class Forbid(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in FORBIDDEN:
            raise ImportError(f"{name} is not an inference requirement")
repository, model, rows = sys.argv[1:]
sys.path[:] = [path for path in sys.path if path not in ("", repository)]
# an editable install finds the repository through a finder of its own
sys.meta_path[:] = [Forbid()] + [finder for finder in sys.meta_path if "editable" not in repr(finder)]
import mlflow, pandas as pd
loaded = mlflow.pyfunc.load_model(model)
out = loaded.predict(pd.DataFrame(json.loads(rows)))
import llbnad
print(json.dumps({"origin": llbnad.__file__, "forbidden": sorted(FORBIDDEN & set(sys.modules)),
                  "rows": out.to_dict("records")}))
"""


def test_loads_where_only_the_inference_requirements_are(packaged, images, model_files, tmp_path):
    rows = [{"path": str(images[0])}, {"path": str(tmp_path / "gone.png")}]
    repository = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        [COLD, "-c", CLEAN, repository, str(packaged), json.dumps(rows)],
        cwd=tmp_path, capture_output=True, text=True,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["origin"].startswith(str(packaged)) and found["forbidden"] == []
    (direct,) = Predictor(Model.load(model_files["patchcore"])).predict([images[0]])
    assert found["rows"][0]["score"] == pytest.approx(direct.score, abs=1e-6)
    assert found["rows"][1]["score"] is None and "gone.png" in found["rows"][1]["error"]


def test_requirements_are_exact_and_hold_no_orchestration(packaged):
    lines = (packaged / "requirements.txt").read_text().splitlines()
    assert sorted(lines) == sorted(requirements()) and all("==" in line for line in lines)
    names = {line.partition("==")[0].lower() for line in lines}
    assert {"torch", "timm", "mlflow"} <= names and not names & {"dagster", "dvc", "great_expectations"}


def test_path_bytes_and_array_are_the_same_image_and_bad_rows_answer_for_themselves(packaged, images):
    import mlflow

    pixels = np.asarray(Image.open(images[0]).convert("RGB"))
    rows = [
        {"path": str(images[0])},
        {"bytes": images[0].read_bytes()},
        {"bytes": base64.b64encode(images[0].read_bytes()).decode()},
        {"array": pixels},
        {"bytes": "not base64!"},
        {"bytes": b"no image"},
        {"array": [[1, 2], [3]]},
        {"array": [[[0, 0, 300]]]},
        {"path": str(images[0]), "bytes": b"both"},
        {"path": None},
    ]
    out = mlflow.pyfunc.load_model(str(packaged)).predict(pd.DataFrame(rows))
    good, bad = out.head(4), out.tail(6)
    assert good["error"].isna().all() and good["score"].nunique() == 1
    assert np.shape(good["heat_map"][0]) == (8, 8)  # 64 px at stride 8
    # the score is the mean of the map's highest 1 %, here one patch
    assert good["score"][0] == pytest.approx(np.max(good["heat_map"][0]))
    assert bad["score"].isna().all() and bad["error"].str.len().gt(0).all()


def test_a_server_answers_over_http(packaged, images, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (tmp_path / "server.log").open("w")
    server = subprocess.Popen(
        [str(Path(COLD).parent / "mlflow"), "models", "serve", "--env-manager", "local",
         "--model-uri", str(packaged), "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
        cwd=tmp_path, stdout=log, stderr=log, start_new_session=True,
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true",
             "PATH": f"{Path(COLD).parent}{os.pathsep}{os.environ['PATH']}"},
    )  # fmt: skip
    try:
        wait_for(f"http://127.0.0.1:{port}/ping", server, tmp_path / "server.log")
        rows = [{"bytes": base64.b64encode(path.read_bytes()).decode()} for path in images[:2]] + [{"bytes": "!"}]
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            data=json.dumps({"dataframe_records": rows}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=300) as response:
            answers = json.loads(response.read())["predictions"]
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)
        log.close()
    assert [answer["error"] is None for answer in answers] == [True, True, False]
    assert answers[0]["score"] > 0 and np.shape(answers[1]["heat_map"]) == (8, 8)
    assert answers[2]["score"] is None


def wait_for(url, process, log, seconds=300):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"{url} did not answer within {seconds} s:\n{log.read_text()}")
