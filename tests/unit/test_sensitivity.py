"""Synthetic defects change only their own pixels, and rates, summary and curves say what a known detector finds."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from llbnad.cli import app
from llbnad.config import EncoderConfig, RegionConfig, SensitivityConfig, parse
from llbnad.data.region_of_interest import RegionOfInterest
from llbnad.detectors.padim import PadimConfig
from llbnad.errors import ConfigError, DataError
from llbnad.features.store import FeatureStore
from llbnad.inference.prediction import Prediction
from llbnad.model.model import Model, derived_seed, train
from llbnad.model.threshold import threshold_at
from llbnad.sensitivity.defects import KINDS, draw
from llbnad.sensitivity.measure import drawings, score_drawings, usual_sizes
from llbnad.sensitivity.pictures import sensitivity_curves
from llbnad.sensitivity.places import Places
from llbnad.sensitivity.rates import CLEAN, binomial_interval, detection_rates, smallest_found, summary_line
from llbnad.sensitivity.report import numbers, sensitivity_of
from llbnad.sensitivity.robustness import CHANGES, robustness, rotation, shift
from llbnad.sensitivity.unseen import unseen_images

SIZES = (1, 3, 8, 20, 45)
RIGHT_HALF = RegionOfInterest(RegionConfig(polygon=((0.5, 0), (1, 0), (1, 1), (0.5, 1))))


def textured(height=60, width=80, seed=0):
    return np.random.default_rng(seed).integers(90, 160, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_a_defect_changes_only_its_pixels_and_grows(kind):
    for image_id in ("a", "b", "c"):
        image, areas = textured(), []
        before = image.copy()
        for size in SIZES:
            pasted = draw(image, image_id, kind, size, 0.3)
            assert (pasted.image[~pasted.mask] == image[~pasted.mask]).all()
            assert (pasted.image != image).any()
            rows, columns = np.nonzero(pasted.mask)
            assert max(np.ptp(rows), np.ptp(columns)) <= size + 1
            areas.append(int(pasted.mask.sum()))
        assert areas == sorted(set(areas)) and (image == before).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_defect_follows_from_image_kind_size_contrast_and_seed(kind):
    image = textured()
    first = draw(image, "a", kind, 9, 0.3).image
    assert (draw(image, "a", kind, 9, 0.3).image == first).all()
    for other in (
        draw(image, "b", kind, 9, 0.3),
        draw(image, "a", kind, 9, 0.3, seed=1),
        draw(image, "a", kind, 9, 0.1),
    ):
        assert (other.image != first).any()
    changes = [np.abs(draw(image, "a", kind, 9, c).image.astype(int) - image).sum() for c in (0.05, 0.15, 0.4)]
    assert changes[0] < changes[1] and (changes[1] < changes[2] or kind == "swap")


def test_a_defect_larger_than_its_image_is_cut_off():
    for kind in KINDS:
        assert draw(textured(5, 4), "a", kind, 50, 0.5).image.shape == (5, 4, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_defect_lies_in_the_region_of_interest_and_stays_in_its_place(kind):
    """Pixels that `swap` puts there come from inside as well: outside, the image is black."""
    image, places = textured(60, 160), Places(RIGHT_HALF, (160, 60))
    outside = ~RIGHT_HALF.draw((160, 60), (160, 60))
    image[outside] = 0
    for image_id in ("a", "b", "c"):
        for size in (1, 3, 8, 20, 45):
            pasted = draw(image, image_id, kind, size, 0.3, places=places)
            assert pasted.mask.any() and not pasted.mask[outside].any()
            assert kind != "swap" or pasted.image[pasted.mask].min() > 0
    assert draw(image, "a", kind, 500, 0.3, places=places).mask.any()  # it fits nowhere


def test_places_are_all_over_the_region_and_move_only_for_want_of_room():
    places = Places(RIGHT_HALF, (4000, 3000))
    shares = np.random.default_rng(0).random((300, 2))
    small = np.array([places.centre(share, 1) for share in shares])
    assert (small[:, 1] > 1992).all() and np.ptp(small[:, 1]) > 1900 and np.ptp(small[:, 0]) > 2900
    large = np.array([places.centre(share, 400) for share in shares])
    assert large[:, 1].min() >= 2192 and large[:, 1].max() <= 3800
    inner = (small[:, 1] > 2220) & (small[:, 1] < 3780) & (small[:, 0] > 220) & (small[:, 0] < 2780)
    assert inner.sum() > 100 and (small[inner] == large[inner]).all() and (small != large).any()
    with pytest.raises(DataError, match="too small to draw a defect in"):
        Places(RegionOfInterest(RegionConfig(border=0.4999)), (4000, 3000))


@pytest.mark.parametrize(("kind", "size", "contrast"), [("hole", 3, 0.2), ("blot", 0, 0.2), ("blot", 3, 20)])
def test_an_impossible_defect_is_an_error_that_names_it(kind, size, contrast):
    with pytest.raises(ConfigError, match=f"got {kind!r}, {size} px, {contrast}"):
        draw(textured(), "a", kind, size, contrast)


def scored(limits, sizes=(2, 4, 8, 16), clean=0.0):
    """Scores of a detector that finds scratches from a size on, which is another one in each image."""
    rows = [(name, CLEAN, 0, 0.0, clean if name != "odd" else 9.0) for name in limits]
    rows += [(name, "scratch", size, 0.2, float(size >= limit)) for name, limit in limits.items() for size in sizes]
    return pd.DataFrame(rows, columns=["image_id", "kind", "size", "contrast", "score"])


def test_rates_of_a_known_detector():
    table = scored({"a": 4, "b": 4, "c": 8, "d": 16, "odd": 1})
    rates = detection_rates(table, 0.5)
    assert rates["size"].tolist() == [2, 4, 8, 16]
    assert rates["images"].tolist() == [4] * 4  # `odd` is called a defect as it is
    assert rates["rate"].tolist() == [0, 0.5, 0.75, 1]
    assert (rates["low"] <= rates["rate"]).all() and (rates["rate"] <= rates["high"]).all()
    assert rates["low"].iloc[0] == 0 and rates["high"].iloc[0] == pytest.approx(1 - 0.025 ** (1 / 4))
    assert [smallest_found(rates, "scratch", 0.2, share) for share in (0.5, 0.75, 0.9)] == [4, 8, 16]
    line = summary_line(rates, 0.2, 0.01, 5)
    assert "scratch 4 × 1 / 16 × 3 px" in line
    assert "of 4 images (1 more are called defects as they are) at the threshold for 1 % false" in line


def test_where_every_image_is_called_a_defect_nothing_is_measured(tmp_path):
    rates = detection_rates(scored({"a": 4, "b": 4}), -1.0)
    assert rates.empty and list(rates) == ["kind", "contrast", "size", "images", "found", "rate", "low", "high"]
    assert summary_line(rates, 0.2, 0.01, 0).endswith(": none could be measured")
    assert numbers(rates, 0.2) == {"sensitivity": None}
    sensitivity_curves(rates, tmp_path / "empty.png", "none")


def test_a_size_does_not_count_if_a_larger_one_is_missed():
    rates = detection_rates(scored({"a": 4}).query("size != 16"), 0.5)
    worse = pd.concat([rates, rates.tail(1).assign(size=16, rate=0.0)])
    assert smallest_found(rates, "scratch", 0.2, 0.9) == 4
    assert smallest_found(worse, "scratch", 0.2, 0.9) is None
    assert "scratch none" in summary_line(worse, 0.2, 0.01, 4)


def test_the_interval_covers_the_rate():
    low, high = binomial_interval(np.array([0, 5, 10]), np.array([10, 10, 10]))
    assert low.round(3).tolist() == [0, 0.187, 0.692] and high.round(3).tolist() == [0.308, 0.813, 1]


class Bright:
    """An analytic detector: the score is the share of pixels that differ from a plain grey of 128."""

    model = SimpleNamespace(window=None, config=SimpleNamespace(name="bright"))

    def predict(self, sources, threshold=None):
        for pixels in sources:
            changed = (pixels != 128).any(axis=2)
            yield Prediction(float(changed.mean()), changed.astype(np.float32))


@pytest.fixture
def plain(tmp_path):
    files = {name: tmp_path / "in" / f"{name}.png" for name in "abc"}
    (tmp_path / "in").mkdir()
    for path in files.values():
        Image.fromarray(np.full((64, 64, 3), 128, np.uint8)).save(path)
    return files


def test_an_analytic_detector_finds_what_is_large_enough(plain):
    sizes = (2, 4, 8, 16)
    scores = score_drawings(Bright(), plain, drawings(sizes, (0.2,), ["noise", "scratch"]))
    assert len(scores) == 3 * (1 + 2 * 4)
    assert (scores["score"][scores["kind"] == CLEAN] == 0).all()
    rates = detection_rates(scores, 40 / 64**2)  # a square of 8 px has 64 pixels, one of 4 px has 16
    assert rates["kind"].unique().tolist() == ["scratch", "noise"]
    assert rates["rate"][rates["kind"] == "noise"].tolist() == [0, 0, 1, 1]
    assert smallest_found(rates, "noise", 0.2, 0.9) == 8
    assert numbers(rates, 0.2)["smallest_noise_px"] == 8
    assert usual_sizes([64, 640, 640]) == (10, 20, 40, 80, 160)


def test_harmless_changes_alarm_only_who_sees_them(plain):
    threshold = threshold_at(np.linspace(0, 0.5, 99), 0.01)
    table = robustness(Bright(), plain, threshold).set_index(["change", "strength"])["false_positives"]
    assert table["none"].tolist() == [0] and (table["light"] == 1).all() and (table["noise"] == 1).all()
    for change in ("blur", "jpeg", "shift", "rotation"):  # a plain picture stays as it is
        assert (table[change] == 0).all()
    assert table.index.unique("change").tolist() == ["none", *CHANGES]


def test_shift_and_rotation_move_the_image():
    image = textured()
    assert (shift(image, "a", 0.05)[:, 4:] == image[:, :-4]).all()
    assert (rotation(image, "a", 90) == np.rot90(image)).all()
    assert rotation(image, "a", 5).shape == image.shape


def test_images_to_draw_on_are_unseen_and_never_rejected(few_cells, tmp_path):
    manifest, root = few_cells
    store = FeatureStore(tmp_path, EncoderConfig(input_size=64), manifest, root)
    config, seed = PadimConfig(dimensions=8), 3
    kept = manifest["image_id"][manifest["anomaly_class"] == "OK"].tolist()
    final = replace(train(store.config, config, store, kept, 0), region=RIGHT_HALF)
    found = unseen_images(final, manifest.assign(split="train"), kept, store, 12, seed)
    assert found.model.region is RIGHT_HALF  # it looks where the final detector looks
    drawn_on = found.images["image_id"].tolist()
    others = sorted(set(kept) - set(drawn_on))
    assert drawn_on and set(drawn_on) < set(kept) and f"trained on the other {len(others)}" in found.whose
    again = train(store.config, config, store, others, derived_seed(seed, "calibration 0"))
    assert found.model.digest() == again.digest() != final.digest()
    tested = unseen_images(final, manifest.assign(split="test"), [], store, 3, seed)
    assert tested.model is final and len(tested.images) == 3 and set(tested.images["anomaly_class"]) == {"OK"}


def test_without_threshold_or_images_it_is_not_measured_and_old_pictures_go(model_files, few_cells, tmp_path):
    manifest, root = few_cells
    model = Model.load(model_files["padim"])
    (tmp_path / "sensitivity.png").touch()
    arguments = (manifest, [], None, root)
    assert sensitivity_of(model, *arguments, SensitivityConfig(), 0, "cpu", tmp_path) is None
    assert not (tmp_path / "sensitivity.png").exists()
    found = sensitivity_of(model, *arguments, SensitivityConfig(images=3), 0, "cpu", tmp_path)
    assert found.line == "sensitivity is not measured: the model has no threshold, so nothing is found or missed"
    assert found.content == {"sensitivity": None, "sensitivity_line": found.line}


def test_the_command_writes_tables_and_pictures(model_files, plain, tmp_path):
    model = Model.load(model_files["padim"])
    file, out = tmp_path / "model.safetensors", tmp_path / "out"
    replace(model, threshold=threshold_at(np.linspace(1, 20, 99), 0.1)).save(file)
    arguments = [str(file), str(plain["a"].parent), "--out", str(out), "--sizes", "8,30", "--count", "2"]
    done = CliRunner().invoke(app, ["sensitivity", *arguments])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith("smallest synthetic defects found in half / 90 % of")
    assert "at the threshold for 10 % false" in lines[0]
    assert any(line.startswith("  after rotation 1: ") for line in lines)
    assert sorted(path.name for path in out.iterdir()) == [
        "robustness.csv", "sensitivity.csv", "sensitivity.png", "synthetic_defects.png"
    ]  # fmt: skip
    table = pd.read_csv(out / "sensitivity.csv")
    assert set(table["size"]) <= {8, 30} and set(table["kind"]) <= set(KINDS)


def test_the_command_refuses_a_model_without_threshold_and_lists_that_are_none(model_files, plain, tmp_path):
    arguments = ["sensitivity", str(model_files["padim"]), str(plain["a"].parent), "--out", str(tmp_path / "out")]
    with pytest.raises(DataError, match="has no threshold, so it finds and misses nothing"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    with pytest.raises(ConfigError, match="sizes"):
        CliRunner().invoke(app, [*arguments, "--sizes", "4,large"], catch_exceptions=False)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"sizes": [8, 4]}, "ascending whole numbers"),
        ({"sizes": [0, 4]}, "ascending whole numbers"),
        ({"contrasts": [0.2, 0.2]}, "distinct numbers in"),
        ({"contrasts": [20]}, "distinct numbers in"),
        ({"images": -1}, "greater than or equal to 0"),
    ],
)
def test_impossible_settings_are_refused(content, reason):
    with pytest.raises(ConfigError, match=reason):
        parse(SensitivityConfig, content, "sensitivity")
