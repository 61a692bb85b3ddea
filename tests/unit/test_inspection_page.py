"""The inspection page's answers: scores and labels, and what it refuses."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from llbnad.inference.predict import Predictor
from llbnad.inference.prediction import Prediction
from llbnad.inference.request import Limits
from llbnad.model.model import Model
from orchestration.inspection.card import file_facts, registry_facts
from orchestration.inspection.champion import Champion, model_finder
from orchestration.inspection.page import inspection_app
from orchestration.inspection.scored_images import ScoredImages
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
    regions = [one.numbers() for one in expected.regions]
    assert (result["label"], result["error"], result["regions"]) == (
        expected.label,
        "",
        json.loads(json.dumps(regions)),
    )
    assert result["size"] == [*expected.size] and result["fpr"] == model.pixel_threshold.levels.target_fpr
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


def test_the_slider_moves_labels_and_regions_to_those_of_the_model_at_that_rate(client, champion, few_cells):
    manifest, root = few_cells
    paths = [root / path for path in manifest["path"]]
    model = champion.current.predictor.model
    scored = [client.post("/api/score", content=path.read_bytes(), headers=BYTES).json() for path in paths]
    names = [one["image"] for one in scored]
    seen = set()
    for rate in (0.02, 0.2, 0.5):
        threshold, pixels = model.threshold.at(rate), model.pixel_threshold.at(rate)
        told = client.post("/api/labels", json={"fpr": rate, "images": [*names, "unknown"]}).json()
        expected = list(Predictor(model).predict(paths, threshold, pixels))
        assert told["threshold"]["value"] == threshold.value and told["threshold"]["text"] == threshold.describe()
        assert told["labels"] == [*(one.label for one in expected), None]
        assert told["model"] == champion.current.name
        for name, one in zip(names, expected, strict=True):
            moved = client.post("/api/regions", json={"fpr": rate, "image": name}).json()["regions"]
            assert [region["box"] for region in moved] == [list(region.box) for region in one.regions]
            assert [region["area"] for region in moved] == [region.area for region in one.regions]
        seen.add(sum(len(one.regions) for one in expected))
    assert len(seen) > 1
    assert client.post("/api/regions", json={"fpr": 0.1, "image": "unknown"}).json() == {"regions": None}
    for wrong in (0, 1, -1, "x"):
        assert client.post("/api/labels", json={"fpr": wrong, "images": []}).status_code == 422
        assert client.post("/api/regions", json={"fpr": wrong, "image": names[0]}).status_code == 422


def test_an_image_is_judged_by_the_model_that_scored_it(calibrated, few_cells, tmp_path):
    from llbnad.model.threshold import threshold_at

    file = tmp_path / "model.safetensors"
    file.write_bytes(calibrated.read_bytes())
    followed = Champion(model_finder(str(file)))
    app = inspection_app(followed, lambda: {}, [HOST], Limits())
    client = TestClient(app, base_url=f"http://{HOST}")
    manifest, root = few_cells
    content = (root / manifest["path"][0]).read_bytes()
    before = client.post("/api/score", content=content, headers=BYTES).json()
    other = replace(Model.load(calibrated), threshold=threshold_at(np.array([0.0, 1e-6] * 50, np.float32), 0.1))
    other.save(file)
    assert followed.refresh()
    after = client.post("/api/score", content=content, headers=BYTES).json()
    assert after["model"] != before["model"]
    told = client.post("/api/labels", json={"fpr": 0.1, "images": [before["image"], after["image"]]}).json()
    first = Model.load(calibrated).threshold.at(0.1).labels(np.array([before["score"]], np.float32))[0]
    assert told["labels"] == [first, "defect"] and first != "defect"
    assert told["model"] == after["model"]


def test_the_oldest_maps_are_forgotten_first(champion):
    images = ScoredImages(most_bytes=3 * 4096)
    found = Prediction(0.5, np.zeros((32, 32), np.float32), size=(64, 64))
    names = [images.add(champion.current, found) for _ in range(5)]
    assert [one is None for one in images.labels(names, 0.1)] == [True, True, False, False, False]
    large = images.add(champion.current, replace(found, patch_map=np.zeros((64, 64), np.float32)))
    assert images.labels([names[-1], large], 0.1)[0] is None and images.labels([large], 0.1)[0] is not None


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
    assert result["regions"] is None
    assert client.post("/api/regions", json={"fpr": 0.1, "image": result["image"]}).json() == {"regions": None}
    answer = client.post("/api/labels", json={"fpr": 0.1, "images": [result["image"]]})
    assert answer.status_code == 400 and "no threshold" in answer.json()["error"]


def test_the_template_is_part_of_the_package():
    assert (Path(inspection_app.__code__.co_filename).parent / "page.html").is_file()
