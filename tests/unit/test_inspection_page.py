"""The inspection page's answers: scores and verdicts, and what it refuses."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from llbnad.inference.predict import Predictor
from llbnad.inference.request import Limits
from orchestration.inspection.card import file_facts, registry_facts
from orchestration.inspection.champion import Champion, model_finder
from orchestration.inspection.page import inspection_app
from tests.conftest import save_image

HOST = "127.0.0.1:5050"
BYTES = {"Content-Type": "application/octet-stream"}


@pytest.fixture(scope="module")
def champion(calibrated) -> Champion:
    return Champion(model_finder(str(calibrated)))


@pytest.fixture(scope="module")
def client(champion):
    scorer = champion.current
    app = inspection_app(
        champion, lambda: file_facts(scorer.name, scorer.file, scorer.predictor.model), [HOST], Limits(bytes=200_000)
    )
    return TestClient(app, base_url=f"http://{HOST}")


def test_an_image_is_scored_as_predict_scores_it(client, champion, few_cells):
    manifest, root = few_cells
    path = root / manifest["path"][0]
    answer = client.post("/api/score?name=cell.png", content=path.read_bytes(), headers=BYTES)
    result = answer.json()
    model = champion.current.predictor.model
    (expected,) = Predictor(model).predict([path], champion.current.threshold, model.pixel_threshold)
    assert expected.regions is not None and expected.size is not None
    assert answer.status_code == 200 and result["score"] == pytest.approx(expected.score, rel=1e-5)
    regions = [{**one.numbers(), "image_size": [*expected.size]} for one in expected.regions]
    assert (result["label"], result["error"], result["regions"]) == (expected.label, "", regions)
    assert result["picture"].startswith("data:image/jpeg;base64,")


@pytest.mark.parametrize("content", [b"no image", b"", b"\x89PNG\r\n\x1a\n\0\0"])
def test_a_bad_image_is_one_message(client, content):
    answer = client.post("/api/score?name=bad.png", content=content, headers=BYTES)
    result = answer.json()
    assert answer.status_code == 200 and result["score"] is None and result["picture"] is None
    assert result["error"].startswith("bad.png ") and "\n" not in result["error"]


def test_what_is_too_large_is_refused(client):
    answer = client.post("/api/score?name=large.png", content=b"x" * 200_001, headers=BYTES)
    assert answer.status_code == 413 and answer.json()["error"].startswith("large.png is larger than 200000 bytes")


def test_the_slider_gives_the_threshold_of_the_model_at_that_rate(client, champion):
    model = champion.current.threshold
    scores = [float(model.scores[0]), float(model.scores[-1]), None]
    for rate in (0.02, 0.5):
        told = client.post("/api/verdicts", json={"fpr": rate, "scores": scores}).json()
        moved = model.at(rate)
        assert told["threshold"]["value"] == moved.value and told["threshold"]["text"] == moved.describe()
        assert told["labels"] == [*moved.labels(np.array(scores[:2], np.float32)), ""]
    for wrong in (0, 1, -1, "x"):
        assert client.post("/api/verdicts", json={"fpr": wrong, "scores": []}).status_code == 422


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Origin": f"http://{HOST}", "Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
def test_other_pages_are_refused(client, tmp_path, headers, status):
    content = save_image(tmp_path / "a.png").read_bytes()
    answer = client.post("/api/score", content=content, headers={**BYTES, **headers})
    assert answer.status_code == status and (status == 200 or "error" in answer.json())
    assert "access-control-allow-origin" not in answer.headers


def test_the_page_loads_nothing_from_elsewhere(client):
    answer = client.get("/")
    policy = answer.headers["content-security-policy"]
    assert answer.status_code == 200 and "unsafe" not in policy and "default-src 'none'" in policy
    nonce = policy.partition("'nonce-")[2].partition("'")[0]
    assert answer.text.count(f'nonce="{nonce}"') == 2 and "__NONCE__" not in answer.text
    assert client.get("/").headers["content-security-policy"] != policy
    for word in ("src=", "href=", "@import", "https://"):
        assert word not in answer.text
    assert client.get("/docs").status_code == 404


def test_the_card_says_what_the_model_is_and_how_it_was_checked(client, champion):
    card = client.get("/api/card").json()
    assert card["threshold"]["fpr"] == 0.1 and card["most_bytes"] == 200_000
    assert card["facts"]["Detector"] == "patchcore" and card["facts"]["Threshold"].startswith("threshold ")
    findings = [
        {"name": "spread", "outcome": "passed", "observed": "1", "expected": "> 0"},
        {"name": "alarms", "outcome": "skipped", "observed": "nothing new", "expected": ""},
    ]
    facts = registry_facts({"checks": json.dumps(findings), "dvc.raw": "abc", "other": "x"})
    assert facts == {"Checks": "spread passed; alarms skipped (nothing new)", "Data (DVC hash)": "abc"}


def test_a_model_without_a_threshold_scores_only(model_files, tmp_path):
    bare = Champion(model_finder(str(model_files["patchcore"])))
    app = inspection_app(bare, lambda: {}, [HOST], Limits())
    client = TestClient(app, base_url=f"http://{HOST}")
    stream = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(stream, "png")
    result = client.post("/api/score", content=stream.getvalue(), headers=BYTES).json()
    assert result["score"] is not None and result["label"] == ""
    assert client.get("/api/card").json()["threshold"] is None
    answer = client.post("/api/verdicts", json={"fpr": 0.1, "scores": [1.0]})
    assert answer.status_code == 400 and "no threshold" in answer.json()["error"]


def test_the_template_is_part_of_the_package():
    assert (Path(inspection_app.__code__.co_filename).parent / "page.html").is_file()
