"""Data checks: Great Expectations passes good tables, stops bad tables, and writes equal reports for equal tables."""

import json

import numpy as np
import pandas as pd
import pytest

from llbnad.config import InjectedNoise
from llbnad.data.contaminate import contaminate
from llbnad.data.manifest import normalise
from orchestration.pipeline.validation import ValidationError, check_manifest, check_noisy, check_purified
from tests.conftest import made_manifest


@pytest.fixture
def manifest():
    return normalise(made_manifest(50, 25))


def noisy_of(manifest):
    return contaminate(manifest, InjectedNoise(ratio=0.2, max_ratio=0.4, test_share=0.2), 0)


def test_good_tables_pass_and_reports_are_reproducible(tmp_path, manifest):
    for name in ("a", "b"):
        check_manifest(manifest, tmp_path / name)
    report = json.loads((tmp_path / "a").read_text())
    assert report["success"] and all(item["success"] for item in report["expectations"])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda m: m.assign(image_id="xyz"), "image_id is a SHA-256 in hex"),
        (lambda m: pd.concat([m, m.head(1)]), "image_id is unique"),
        (lambda m: m.assign(path="/home/" + m["path"]), "path is relative"),
        (lambda m: m.assign(width=0), "width is at least 1 pixel"),
        (lambda m: m.assign(split="validation"), "split is train, test or empty"),
        (lambda m: m.drop(columns="view"), "columns are exactly the documented ones, in order"),
        (lambda m: m.head(0), "there is at least one image"),
        (lambda m: m.assign(sample_id=None), "sample_id is never empty"),
    ],
)
def test_bad_manifest_is_stopped_and_the_report_says_why(tmp_path, manifest, change, sentence):
    with pytest.raises(ValidationError, match="failed"):
        check_manifest(change(manifest), tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    failed = [item["expectation"] for item in report["expectations"] if not item["success"]]
    assert not report["success"] and sentence in failed


def test_noisy_variant_must_keep_the_protocol_s_promise(tmp_path, manifest):
    noisy = noisy_of(manifest)
    check_noisy(noisy, 0.2, tmp_path / "ok.json")
    with pytest.raises(ValidationError, match="share of anomalous training samples"):
        check_noisy(noisy, 0.3, tmp_path / "bad.json")
    overlapping = noisy.copy()
    overlapping.loc[overlapping.index[overlapping["split"] == "test"][:1], "sample_id"] = overlapping.loc[
        overlapping["split"] == "train", "sample_id"
    ].iloc[0]
    with pytest.raises(ValidationError, match="in both train and test"):
        check_noisy(overlapping, None, tmp_path / "bad.json")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda ids, scores: (scores.assign(score=np.nan), ids[:30], ids[30:]), "score is never missing"),
        (lambda ids, scores: (scores.assign(score=np.inf), ids[:30], ids[30:]), "score is finite"),
        (lambda ids, scores: (scores, ids[:30], ids[29:]), "images both kept and rejected"),
        (lambda ids, scores: (scores, ids[:30], ids[31:]), "neither kept nor rejected"),
        (lambda ids, scores: (scores, ids[:1], ids[1:]), "at least 2 images are kept"),
        (lambda ids, scores: (scores.head(3), ids[:30], ids[30:]), "without a score"),
        (lambda ids, scores: (scores, [*ids[:30], "f" * 64], ids[30:]), "not for training"),
    ],
)
def test_verdict_must_be_whole(tmp_path, manifest, spoil, sentence):
    train = noisy_of(manifest).query("split == 'train'")
    ids = train["image_id"].tolist()
    scores = pd.DataFrame({"image_id": ids, "score": np.linspace(0, 1, len(ids))})
    check_purified(train, scores, ids[:30], ids[30:], tmp_path / "ok.json")
    with pytest.raises(ValidationError, match=sentence):
        check_purified(train, *spoil(ids, scores), tmp_path / "bad.json")
