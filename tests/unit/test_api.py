"""The public functions: the example runs, and they give what `llbnad run` gives."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from textwrap import dedent

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

import llbnad
from llbnad.cli import app
from llbnad.config import EncoderConfig, ImageFolderDataset
from llbnad.data.sources import read_source
from llbnad.detectors.patchcore.detector import PatchcoreConfig
from llbnad.errors import ConfigError, DataError
from llbnad.policies.fraction import Fraction

SMALL = {"encoder": {"input_size": 64}, "subsets": 2}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def by_command(cells, cache, tmp_path_factory):
    """Return the output folder of `llbnad run` on the unlabelled cells."""
    out = tmp_path_factory.mktemp("command") / "out"
    (out.parent / "settings.yaml").write_text("detector: {name: patchcore, memory_size: 512}\nseed: 9\n")
    arguments = ["run", "--source", "image_folder", "--root", cells, "--protocol", "as_is", "--subsets", 2, "--seed", 3,
                 "--policy", "mad", "--config", out.parent / "settings.yaml", "--set", "encoder.input_size=64",
                 "--no-comparators", "--suspects", 1, "--cache", cache, "--out", out]  # fmt: skip
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return out


@pytest.fixture(scope="module")
def fitted(cells, cache):
    detector = {"name": "patchcore", "memory_size": 512}
    return llbnad.fit(cells, detector, policy="mad", seed=3, cache=cache, **SMALL)


def test_fit_gives_the_bytes_of_llbnad_run(by_command, fitted, cells, tmp_path):
    fitted.save(tmp_path / "model.safetensors")
    assert (tmp_path / "model.safetensors").read_bytes() == (by_command / "model.safetensors").read_bytes()
    kept, rejected = (pd.read_parquet(by_command / f"{part}.parquet") for part in ("kept", "rejected"))
    found = fitted.purification
    assert found.kept == sorted(cells / path for path in kept["path"])
    assert sorted(found.rejected) == sorted(cells / path for path in rejected["path"])
    assert 0 < len(found.rejected) < len(found.kept)
    scored = pd.concat([kept, rejected]).set_index("path")["score"]
    assert found.scores.to_dict() == {cells / path: one for path, one in scored.items()}
    assert found.scores.is_monotonic_decreasing
    suspects = pd.read_csv(by_command / "suspects.csv")
    apart = suspects[suspects["reason"].str.contains("stands apart")]
    assert found.suspects == [cells / path for path in apart["path"]]
    assert set(rejected["path"]) <= set(suspects["path"])
    assert fitted.notes == json.loads((by_command / "metrics.json").read_text())["notes"]
    assert fitted.notes[:-1] == found.notes and fitted.notes[-1].startswith(
        "expect 1.30% false positives, where 1.00% were asked for, because there are too few"
    )
    assert llbnad.load(tmp_path / "model.safetensors").notes == fitted.notes[-1:]
    assert found.scores[found.rejected].tolist() == found.scores.iloc[: len(found.rejected)].tolist()
    assert set(found.heat_maps) == set(found.scores.index)
    assert {heat.shape for heat in found.heat_maps.values()} == {(8, 8)}


def test_the_example_of_the_package_runs(cells, tmp_path, monkeypatch, capsys):
    for name, count in (("good", 20), ("bad", 10)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for path in sorted((cells / name).iterdir())[:count]:
            (tmp_path / "images" / name / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    example = dedent(llbnad.__doc__[llbnad.__doc__.index("    import llbnad") :])
    assert example.count('"images/", detector="patchcore"') == 2
    names = {}
    exec(example.replace('"images/", detector', '"images/", encoder={"input_size": 64}, detector'), names)
    assert names["result"].kept == names["model"].purification.kept
    rejected, predictions = capsys.readouterr().out.split("\n", 1)
    assert "images/bad/" in rejected
    assert len(predictions.splitlines()) >= 31 and "path" in predictions


@pytest.mark.parametrize("form", ["folder", "this folder", "files", "manifest", "objects"])
def test_however_images_and_settings_are_given_the_same_are_kept(form, fitted, cells, cache, monkeypatch):
    files = [str(path) for path in cells.rglob("*.png")]
    images, more, detector = cells, SMALL, {"name": "patchcore", "memory_size": 512}
    if form == "files":
        images = files
    elif form == "this folder":
        monkeypatch.chdir(cells)
        images = "."
    elif form == "manifest":
        scan, root = read_source(ImageFolderDataset(root=str(cells), category="c"), cells)
        images, more = scan.manifest, {**SMALL, "root": root}
    elif form == "objects":
        detector, more = PatchcoreConfig(memory_size=512), {**SMALL, "encoder": EncoderConfig(input_size=64)}
    found = llbnad.purify(images, detector, policy="mad", seed=3, cache=cache, **more)
    where = cells if form == "this folder" else Path()
    assert [where / path for path in found.kept] == fitted.purification.kept
    assert [where / path for path in found.rejected] == fitted.purification.rejected


def test_files_that_cannot_be_used_are_listed(cells, cache, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"nothing")
    files = [*sorted((cells / "good").iterdir())[:12], tmp_path / "broken.png", tmp_path / "gone.png"]
    found = llbnad.purify(files, policy=Fraction(keep=0.5), cache=cache, **SMALL)
    assert len(found.kept) == len(found.rejected) == 6 and set(found.kept) < set(files)
    assert found.left_out["reason"].tolist() == ["unreadable", "missing"]


def test_every_form_of_an_image_is_predicted_alike(fitted, by_command, cells, tmp_path):
    path = sorted((cells / "bad").iterdir())[0]
    pixels = np.asarray(Image.open(path).convert("RGB"))
    loaded = llbnad.load(by_command / "model.safetensors")
    assert loaded.purification is None and loaded.threshold.value == fitted.threshold.value
    found = loaded.predict([path, str(path), path.read_bytes(), pixels, tmp_path / "gone.png"])
    assert found.columns.tolist() == ["path", "score", "label", "heat_map", "regions", "error"]
    regions = [[region.numbers() for region in one] for one in found["regions"][:4]]
    assert regions == [regions[0]] * 4 and found["regions"][4] is None
    assert found["path"].tolist() == [path, path, None, None, tmp_path / "gone.png"]
    assert found["score"][:4].nunique() == 1 and found["heat_map"][0].shape == (8, 8)
    assert pd.isna(found["score"][4]) and "gone.png is gone" in found["error"][4] and found["heat_map"][4] is None
    assert found["error"][:4].tolist() == [""] * 4
    assert loaded.predict(pixels)["score"].tolist() == loaded.predict(path)["score"].tolist() == [found["score"][0]]


def test_labels_follow_the_rate_asked_for(fitted, cells):
    usual, sensitive = fitted.predict(cells / "bad"), fitted.predict(cells / "bad", target_fpr=0.5)
    for table, threshold in ((usual, fitted.threshold), (sensitive, fitted.threshold.at(0.5))):
        assert table["label"].tolist() == threshold.labels(table["score"].to_numpy()).tolist()
    assert (usual["label"] == "normal").sum() > (sensitive["label"] == "normal").sum()
    with pytest.raises(ConfigError, match=r"did you mean 0\.05"):
        fitted.predict(cells / "bad", target_fpr=5)


def test_encoded_images_do_not_outlive_the_call_unless_a_cache_is_named(cells, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    files = sorted((cells / "good").iterdir())[:8]
    llbnad.purify(files, **SMALL)
    assert not list((tmp_path / "temporary").iterdir())
    llbnad.purify(files, cache=tmp_path / "kept", **SMALL)
    assert len(list((tmp_path / "kept").rglob("*.safetensors"))) == 8


def test_people_s_verdicts_override_the_policy(cells, cache, tmp_path, fitted):
    image_id = fitted.purification.selection.purified.rejected[0]
    (tmp_path / "review.csv").write_text(f"image_id,verdict\n{image_id},normal\n")
    detector = {"name": "patchcore", "memory_size": 512}
    found = llbnad.purify(
        cells, detector, policy="mad", seed=3, cache=cache, review=str(tmp_path / "review.csv"), **SMALL
    )
    assert set(found.kept) - set(fitted.purification.kept) == set(fitted.purification.rejected) - set(found.rejected)
    assert len(found.kept) == len(fitted.purification.kept) + 1


@pytest.mark.parametrize(
    ("images", "settings", "error", "message"),
    [
        ("cells", {"colour": 1}, ConfigError, "llbnad.fit: colour is an unknown key"),
        ("cells", {"detector": "magic"}, ConfigError, "llbnad.fit: detector: unknown detector 'magic'"),
        ("cells", {"policy": {"policy": "fraction", "keep": 20}}, ConfigError, r"did you mean 0\.2"),
        ("cells", {"encoder": "resnet"}, ConfigError, r"encoder\.name: unknown encoder 'resnet'"),
        ("cells", {"subsets": 1}, ConfigError, "llbnad.fit: aggregation oof_mean needs at least 2 subsets"),
        ("cells", {"encoder": {"layers": [9]}}, ConfigError, "has the stages 0"),
        ("nowhere/", {}, DataError, "nowhere is not a folder: give a folder of images, or a CSV"),
        ([], {}, DataError, "no image is given"),
        (pd.DataFrame({"path": ["a.png"]}), {}, DataError, "manifest lacks the columns"),
    ],
)
def test_what_is_wrong_is_said(images, settings, error, message, cells):
    with pytest.raises(error, match=message):
        llbnad.fit(cells if isinstance(images, str) and images == "cells" else images, **settings)


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, llbnad; print(sorted({'numpy', 'pandas', 'pydantic', 'torch'} & set(sys.modules)), dir(llbnad))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[] ")
    assert all(f"'{name}'" in done.stdout for name in llbnad.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'magic'"):
        _ = llbnad.magic
    assert llbnad.fit.__module__ == "llbnad.api"
    assert Path(llbnad.__file__).name == "__init__.py"
