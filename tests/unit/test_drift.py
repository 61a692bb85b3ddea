"""Drift on real solar cells: the same distribution passes at the stated rate, worse pictures do not pass."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFilter

from llbnad.config import ElpvDataset, EncoderConfig
from llbnad.data.sources import elpv
from llbnad.data.sources.records import Listing, Record
from llbnad.data.sources.scan_files import scan
from llbnad.errors import DataError, IdentityError
from llbnad.features.store import FeatureStore
from llbnad.monitoring.drift import LEVEL, Described, DriftReport, compare, describe, drift_report, image_numbers
from llbnad.monitoring.drift_history import drift_history
from orchestration.line.arrivals import Arrival, batches_of, camera_names, write_report

REFERENCE, BATCH = 70, 30
CHANGES = {
    "dark": lambda image: image.point(lambda value: value * 0.6),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(3)),
    "small": lambda image: image.resize((150, 150)),
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Manifest, ids by kind, features and root of 100 normal cells, the last 30 also dark, blurred, small."""
    root = tmp_path_factory.mktemp("drift")
    listing = elpv.records(ElpvDataset())
    cells = [record for record in listing.records if record.anomaly_class == "OK"][: REFERENCE + BATCH]
    records = []
    for number, index in enumerate(np.random.default_rng(0).permutation(len(cells))):
        with Image.open(listing.root / cells[index].path) as image:
            kinds = {"cell": image.copy()}
            if number >= REFERENCE:
                kinds |= {name: change(image) for name, change in CHANGES.items()}
        for name, changed in kinds.items():
            path = f"{name}_{number:03d}.png"
            changed.save(root / path)
            records.append(Record(path, "cells", path))
    manifest = scan(Listing(root, records)).manifest.sort_values("path")
    ids = {name: manifest["image_id"][manifest["path"].str.startswith(name)].tolist() for name in ("cell", *CHANGES)}
    features = FeatureStore(root / "cache", EncoderConfig(input_size=64), manifest, root)
    return manifest, ids, features, root


def report_on(images, kind, seed=0):
    manifest, ids, features, root = images
    batch = ids["cell"][REFERENCE:] if kind == "cell" else ids[kind]
    return drift_report(ids["cell"][:REFERENCE], batch, features, manifest, root, seed)


def test_the_same_distribution_is_called_drift_in_few_of_many_splits(images):
    manifest, ids, features, root = images
    known = describe(ids["cell"], features, manifest, root)
    rng = np.random.default_rng(0)
    alarms = 0
    for seed in range(40):
        order = rng.permutation(REFERENCE + BATCH)
        parts = [
            Described(known.vectors[chosen], known.numbers.iloc[chosen])
            for chosen in (order[:REFERENCE], order[REFERENCE:])
        ]
        alarms += compare(*parts, seed).drifted
    assert alarms <= 2  # 40 · LEVEL = 0.4 expected; more than 2 has a probability below 1 %
    assert LEVEL == 0.01


def test_like_images_pass_and_worse_ones_are_named(images):
    assert not report_on(images, "cell").drifted
    assert "no drift: 30 images are like the 70 known" in report_on(images, "cell").reason
    for kind, statistic, words in (
        ("dark", "brightness", "brightness has changed"),
        ("blurred", "sharpness", "sharpness has changed"),
        ("small", "size", "image sizes have changed"),
    ):
        report = report_on(images, kind)
        drifted = {one.name for one in report.statistics if one.drifted}
        assert statistic in drifted, kind
        # the encoder's input is resized to a square: it cannot tell a smaller image from a larger one
        assert "features" in drifted or kind == "small"
        assert words in report.reason


def test_order_of_images_changes_nothing_and_a_report_survives_json(images):
    manifest, ids, features, root = images
    first = report_on(images, "dark")
    second = drift_report(ids["cell"][:REFERENCE][::-1], ids["dark"][::-1], features, manifest, root, 0)
    assert first == second
    assert DriftReport.from_dict(json.loads(json.dumps(first.to_dict()))) == first
    assert first.to_dict()["drifted"] is True


def made(count, shift=0.0, rejected=0, seed=0):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, 5))
    vectors[:, 0] += shift
    numbers = pd.DataFrame({"brightness": rng.normal(size=count)})
    return Described(vectors, numbers, np.arange(count) < rejected)


def test_the_p_value_is_uniform_without_drift_and_small_with_it():
    p_values = [compare(made(40, seed=k), made(20, seed=1000 + k), k).statistics[0].p_value for k in range(100)]
    assert 0.4 < np.mean(p_values) < 0.6
    assert compare(made(40), made(20, shift=2, seed=1), 0).statistics[0].p_value < 0.001


def test_a_trifle_is_no_drift_however_many_images_show_it():
    report = compare(made(500), made(500, shift=0.3, seed=1), 0)
    (features, *_) = report.statistics
    assert features.p_value <= 0.001 and not features.drifted


def test_a_jump_of_the_rejection_rate_is_drift():
    report = compare(made(200, rejected=4), made(100, rejected=20, seed=1), 0)
    (rate,) = [one for one in report.statistics if one.name == "rejection"]
    assert (rate.reference, rate.batch) == (0.02, 0.2)
    assert rate.drifted and "0.02 → 0.2" in report.reason
    assert not compare(made(200, rejected=4), made(100, rejected=2, seed=1), 0).drifted


def test_numbers_of_a_known_image(tmp_path):
    Image.new("L", (100, 10), 51).save(tmp_path / "flat.png")
    flat = image_numbers(tmp_path / "flat.png")
    assert flat == pytest.approx({"brightness": 0.2, "sharpness": -8, "size": 3})
    stripes = np.tile(np.uint8([[0, 255]]), (10, 50))
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    assert image_numbers(tmp_path / "stripes.png")["sharpness"] > 0


def test_too_few_and_unknown_images_are_refused(images):
    manifest, ids, features, root = images
    with pytest.raises(DataError, match="at least 2 images per side, but the batch has 1"):
        drift_report(ids["cell"], ids["dark"][:1], features, manifest, root, 0)
    with pytest.raises(IdentityError, match="images of the batch are not in the manifest"):
        drift_report(ids["cell"], ["x", "y"], features, manifest, root, 0)


def test_history_shows_every_batch_and_has_the_same_bytes(tmp_path):
    reports = {f"day {k}": compare(made(60, rejected=3), made(30, 2.0 * (k > 3), 1, k), k) for k in range(6)}
    for name in ("a.png", "b.png"):
        drift_history(reports, tmp_path / name, "Drift of the line")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.height > 400


def test_every_page_of_a_file_is_in_the_batch_that_it_arrived_with(tmp_path):
    lot, single, other = ("a" * 64, "b" * 64, "c" * 64)
    arrivals = [Arrival(name, name, "raw", batch, "") for name, batch in ((lot, 1), (single, 2), (other, 3))]
    write_report(tmp_path, "line", arrivals)
    folder = "data/raw/line/arrived"
    images = [(lot, f"{folder}/aa/{lot}.tif#1"), ("1" * 64, f"{folder}/aa/{lot}.tif#2"),
              ("2" * 64, f"{folder}/aa/{lot}.tif#3"), (single, f"{folder}/bb/{single}.png"),
              ("3" * 64, "data/own/elsewhere.png")]  # fmt: skip
    manifest = pd.DataFrame(images, columns=["image_id", "path"])
    assert batches_of(tmp_path, "line", manifest) == {lot: 1, "1" * 64: 1, "2" * 64: 1, single: 2}


def test_images_have_the_names_that_the_camera_gave_them(tmp_path):
    """Also those that were stored before names were, and pages; a later copy under another name changes nothing."""
    lot, single, other = ("a" * 64, "b" * 64, "c" * 64)
    arrivals = [Arrival("cam/lot 7.tif", lot, "raw", 1, ""), Arrival("odd \udcff.png", single, "raw", 1, ""),
                Arrival("again.png", single, "duplicate", 2, "")]  # fmt: skip
    write_report(tmp_path, "line", arrivals)
    folder = "data/raw/line/arrived"
    images = [("1" * 64, f"{folder}/aa/{lot}-lot_7-.tif#2"), (single, f"{folder}/bb/{single}.png"),
              (other, f"{folder}/cc/{other}.png")]  # fmt: skip
    manifest = pd.DataFrame(images, columns=["image_id", "path"])
    assert camera_names(tmp_path, "line", manifest) == {"1" * 64: "lot 7.tif#2", single: "odd \\udcff.png"}
    assert batches_of(tmp_path, "line", manifest) == {"1" * 64: 1, single: 1}
