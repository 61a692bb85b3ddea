"""The MLflow model: it loads with the inference requirements alone, answers row by row, in every form of request."""

import base64
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from llbnad.config import EncoderConfig, RegionConfig
from llbnad.data.region_of_interest import RegionOfInterest
from llbnad.detectors import create_detector
from llbnad.detectors.patchcore.detector import PatchcoreConfig
from llbnad.inference.predict import Predictor
from llbnad.inference.request import FOLDER, MAXIMA
from llbnad.model.model import Model
from llbnad.model.pixel_threshold import PixelThreshold
from llbnad.model.threshold import threshold_at
from orchestration.registry.packaging import contents, requirements
from tests.pipeline.conftest import COLD, environment


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
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [COLD, "-c", CLEAN, repository, str(packaged), json.dumps(rows)],
        cwd=tmp_path, capture_output=True, text=True, env={**inherited, FOLDER: str(images[0].parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["origin"].startswith(str(packaged)) and found["forbidden"] == []
    (direct,) = Predictor(Model.load(model_files["patchcore"])).predict([images[0]])
    assert found["rows"][0]["score"] == pytest.approx(direct.score, abs=1e-6)
    assert found["rows"][1]["score"] is None and "gone.png" in found["rows"][1]["error"]
    assert done.stderr.count("type hint") + done.stderr.count("Type hint") == 0  # MLflow would warn at every load


def test_requirements_are_exact_and_hold_no_orchestration(packaged):
    lines = (packaged / "requirements.txt").read_text().splitlines()
    assert sorted(lines) == sorted(requirements()) and all("==" in line for line in lines)
    names = {line.partition("==")[0].lower() for line in lines}
    assert {"torch", "timm", "mlflow"} <= names and not names & {"dagster", "dvc", "great_expectations"}


@pytest.fixture
def served(packaged, images, monkeypatch):
    """Return a function that answers a request as the server does, without HTTP: status and rows, or the error."""
    import mlflow
    from mlflow.exceptions import MlflowException
    from mlflow.pyfunc.scoring_server import invocations

    monkeypatch.setenv(FOLDER, str(images[0].parent))
    monkeypatch.setenv(MAXIMA["rows"], "12")
    model = mlflow.pyfunc.load_model(str(packaged))

    def answer(content: Any, kind: str = "application/json") -> tuple[int, Any]:
        body = content if isinstance(content, str | bytes) else json.dumps(content)
        try:
            found = invocations(body, kind, model, model.metadata.get_input_schema())
        except MlflowException as error:
            return error.get_http_status_code(), json.loads(error.serialize_as_json())["message"]
        return found.status, json.loads(found.response)["predictions"]

    return answer


def test_path_bytes_and_array_are_the_same_image_and_bad_rows_answer_for_themselves(packaged, images, monkeypatch):
    import mlflow

    monkeypatch.setenv(FOLDER, str(images[0].parent))
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


def test_a_model_with_tiles_and_a_region_answers_as_predict_does(images, tmp_path):
    import mlflow

    detector = create_detector(PatchcoreConfig())
    detector.restore({"memory": torch.rand((20, 168), generator=torch.Generator().manual_seed(0))})
    view = EncoderConfig(input_size=64, view="tiles", tiles=(1, 2))
    left = RegionOfInterest(RegionConfig(polygon=((0, 0), (0.5, 0), (0.5, 1), (0, 1))))
    levels, others = (threshold_at(np.linspace(0, most, 50), 0.1) for most in (4, 5))
    model = Model(view, PatchcoreConfig(), detector, threshold=levels, region=left,
                  pixel_threshold=PixelThreshold(others, 0.001))  # fmt: skip
    model.save(tmp_path / "own.safetensors")
    mlflow.pyfunc.save_model(path=str(tmp_path / "served"), **contents(tmp_path / "own.safetensors", {}, {}))
    rows = pd.DataFrame({"bytes": [path.read_bytes() for path in images[:4]]})
    out = mlflow.pyfunc.load_model(str(tmp_path / "served")).predict(rows)
    for row, one in zip(out.to_dict("records"), Predictor(model).predict(images[:4], levels), strict=True):
        assert (row["score"], row["label"]) == (pytest.approx(one.score, abs=1e-6), one.label)
        assert np.allclose(row["heat_map"], one.patch_map, atol=1e-6)
        right = np.asarray(row["heat_map"])[:, one.patch_map.shape[1] // 2 + 1 :]
        assert right.size and not right.any()  # outside of the region


def test_every_form_of_request_answers_every_row_in_order(served, images):
    first, second = (base64.encodebytes(path.read_bytes()).decode() for path in images[:2])
    rows = [{"bytes": first}, {"image": "x"}, {"path": images[1].name}, {}, {"bytes": second}, {"bytes": first}]
    split = [[row.get("bytes"), row.get("path"), row.get("image")] for row in rows]
    table = pd.DataFrame(rows, columns=["bytes", "path", "image"])
    forms = {
        "records": served({"dataframe_records": rows}),
        "split": served({"dataframe_split": {"columns": list(table), "data": split}}),
        "instances": served({"instances": rows}),
        "inputs, rows": served({"inputs": rows}),
        "inputs, columns": served({"inputs": {name: [line[at] for line in split] for at, name in enumerate(table)}}),
        "csv": served(table.to_csv(index=False), "text/csv"),
        "parquet": served(table.to_parquet(), "application/vnd.apache.parquet"),
    }
    for form, (status, found) in forms.items():
        assert status == 200, (form, found)
        assert [row["error"] is None for row in found] == [True, False, True, False, True, True], form
        assert {found[at]["error"] for at in (1, 3)} == {"none of path, bytes, array is filled; expected exactly one"}
        assert found[2]["score"] == found[4]["score"] != found[0]["score"] == found[5]["score"], form


PICTURE = [[0, 255], [128, 7]]


@pytest.mark.parametrize(
    ("request_", "line"),
    [
        ({"dataframe_split": {"columns": ["image"], "data": [["a"], ["b"]]}}, "bytes, array: its columns are image"),
        ({"dataframe_records": [{"Path": "a"}, {"file": "b"}]}, "its columns are Path, file"),
        ({"inputs": ["a.png"]}, "it has no named column"),
        ({"inputs": "a.png"}, "it has no named column"),
        ({"instances": [PICTURE]}, "it has no named column"),
        ({"instances": []}, "it has no named column"),
        ({"dataframe_records": [{}, {}]}, "it has no named column"),
        ({"dataframe_split": {"columns": ["path", "path"], "data": [["a", "b"]]}}, "has a column twice: path, path"),
        ({"inputs": {"path": ["a", "b"], "bytes": ["c"]}}, "different lengths: path 2, bytes 1"),
        ({"instances": [{"path": "a"}] * 13}, "the request has 13 rows, at most 12: send several requests"),
        ({"inputs": [{"path": "a"}], "params": {"target_fpr": 5}}, "false-positive rate"),
    ],
)  # fmt: skip
def test_a_request_that_has_no_usable_row_is_one_error(served, request_, line):
    status, message = served(request_)
    assert status == 400 and line in message and len(message.splitlines()) == 1


def test_images_of_different_shapes_are_read_from_one_request(served):
    status, found = served(
        {"instances": [{"array": PICTURE}, {"array": [[[1, 2, 3]] * 3] * 4}, {"array": [[1], [2, 3]]}]}
    )
    assert status == 200 and [row["error"] is None for row in found] == [True, True, False]
    status, found = served('array\n"[[0, 255], [128, 7]]"\n', "text/csv")
    assert (status, [row["error"] for row in found]) == (200, [None])
    assert found == served({"inputs": [{"array": PICTURE}]})[1]


def test_a_request_of_no_rows_has_no_answers(served):
    assert served({"dataframe_split": {"columns": ["path"], "data": []}}) == (200, [])


def test_a_damaged_file_does_not_say_where_the_folder_is(packaged, images, tmp_path, monkeypatch):
    import mlflow

    (tmp_path / "damaged.png").write_bytes(images[0].read_bytes()[:200])
    monkeypatch.setenv(FOLDER, str(tmp_path))
    (error,) = mlflow.pyfunc.load_model(str(packaged)).predict(pd.DataFrame({"path": ["damaged.png"]}))["error"]
    assert error.startswith("damaged.png is ") and str(tmp_path) not in error


def test_a_server_answers_over_http(packaged, images, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (tmp_path / "server.log").open("w")
    server = subprocess.Popen(
        ["mlflow", "models", "serve", "--env-manager", "local",
         "--model-uri", str(packaged), "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
        cwd=tmp_path, stdout=log, stderr=log, start_new_session=True,
        env=environment(tmp_path),
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{address}/ping", server, tmp_path / "server.log")
        coded = [base64.b64encode(path.read_bytes()).decode() for path in images[:2]]
        answers = post(address, {"dataframe_records": [{"bytes": text} for text in [*coded, "!"]]})["predictions"]
        mixed = post(address, {"instances": [{"bytes": coded[1]}, {"image": "x"}, {"path": "/etc/passwd"}]})[
            "predictions"
        ]
        with pytest.raises(urllib.error.HTTPError) as refused:
            post(address, {"dataframe_split": {"columns": ["image"], "data": [["a.png"], ["b.png"]]}})
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)
        log.close()
    assert [answer["error"] is None for answer in answers] == [True, True, False]
    assert answers[0]["score"] > 0 and np.shape(answers[1]["heat_map"]) == (8, 8)
    assert answers[2]["score"] is None
    assert [row["score"] for row in mixed] == [answers[1]["score"], None, None]
    assert mixed[2]["error"].startswith("path is off here")
    assert refused.value.code == 400
    assert json.loads(refused.value.read()) == {
        "error_code": "BAD_REQUEST",
        "message": "no column of the request is one of path, bytes, array: its columns are image",
    }


def post(address, content):
    request = urllib.request.Request(
        f"{address}/invocations", data=json.dumps(content).encode(), headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=300) as response:
        return json.loads(response.read())


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
