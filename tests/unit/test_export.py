"""Exported graphs compute what torch computes and `predict` writes, from images of any size."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from llbnad.config import EncoderConfig, RegionConfig
from llbnad.data.canvas import Canvas
from llbnad.data.images import load_whole
from llbnad.data.region_of_interest import RegionOfInterest
from llbnad.detectors.dinomaly.config import DinomalyConfig
from llbnad.detectors.patchcore.detector import PatchcoreConfig
from llbnad.errors import ConfigError, DataError, ModelMissingError
from llbnad.features.store import FeatureStore
from llbnad.inference.export import export
from llbnad.inference.exported import Exported, Format, load_exported
from llbnad.inference.graph.lay import lay
from llbnad.inference.graph.precision import Precision
from llbnad.inference.parity import parity
from llbnad.inference.predict import Predictor, predictor_session
from llbnad.inference.write import predict
from llbnad.model.model import Model, train
from llbnad.model.threshold import threshold_at
from tests.conftest import python, shared

pytest.importorskip("onnxscript")
pytest.importorskip("openvino")

THRESHOLD = threshold_at(np.linspace(0.5, 1.5, 40), 0.1)


@pytest.fixture(scope="module")
def unseen(few_cells):
    """Paths and pixels of the defective cells, which no model here was trained on."""
    manifest, root = few_cells
    paths = [root / path for path in manifest["path"][manifest["anomaly_class"] != "OK"]]
    return paths, np.stack([np.asarray(load_whole(path)) for path in paths])


@pytest.fixture(scope="module")
def graphs(model_files, tmp_path_factory):
    """Folder with the three detectors in both formats, and their JSON."""

    def write(folder):
        for file in model_files.values():
            export(replace(Model.load(file), threshold=THRESHOLD), list(Format), folder)

    return shared(tmp_path_factory, "graphs", write)


@pytest.mark.parametrize("detector", ["patchcore", "padim", "dinomaly"])
def test_onnx_and_openvino_agree_with_torch_and_with_predict(detector, model_files, unseen, graphs):
    model = Model.load(model_files[detector])
    images = unseen[1]
    reference = predictor_session(model)
    shape = reference(images)[1].shape
    for suffix in ("onnx", "xml"):
        session = load_exported(graphs / f"{detector}.{suffix}", threads=1)
        found = parity(reference, session, images, batch_size=4)  # 4 and 2 images: the batch size is free
        # PaDiM on 14 images at 64 px amplifies a feature that rounds to the other side in another runtime's arithmetic
        assert found.score <= found.limit and found.map <= (2 if detector == "padim" else 1) * found.limit, found
        assert found.images == 6
        assert session(images)[1].shape == shape
        # an image's score does not depend on its companions
        assert session(images[:1])[0][0] == pytest.approx(session(images)[0][0], rel=1e-5)
    facts = json.loads((graphs / f"{detector}.json").read_text())
    assert facts["input"]["images"] == ["batch", "height", "width", 3] and facts["detector"]["name"] == detector
    assert facts["threshold"] == pytest.approx(THRESHOLD.value)
    assert facts["unsure"] == pytest.approx([THRESHOLD.unsure_low, THRESHOLD.unsure_high])
    for suffix in ("onnx", "xml"):
        alone = Exported.load(graphs / f"{detector}.{suffix}")
        assert alone.facts == facts
        assert alone.threshold.at(0.3).value == THRESHOLD.at(0.3).value


SIDES = [
    (1, 1),
    (1, 9),
    (9, 1),
    (64, 64),
    (63, 65),
    (65, 63),
    (31, 200),
    (200, 31),
    (301, 300),
    (999, 640),
    (47, 1501),
    (537, 300),
    (536, 300),  # where Pillow changes the order of its passes
    (333, 512),
    (335, 512),
    (512, 333),
]  # fitted to 64, one side is half a pixel above a whole number
VIEWS = {
    "squeeze": EncoderConfig(input_size=64),
    "letterbox": EncoderConfig(input_size=64, view="letterbox"),
    "tiles": EncoderConfig(input_size=64, view="tiles", tiles=(2, 3)),
}  # fmt: skip


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_the_graph_lays_images_on_their_canvas_as_pillow_does(runtime, view):
    canvas = Canvas(VIEWS[view], 8)
    content = lay(canvas).SerializeToString()
    if runtime == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(content)
        run = lambda images: session.run(None, {"images": images})  # noqa: E731
    else:
        import openvino

        core = openvino.Core()
        compiled = core.compile_model(core.read_model(content), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        run = lambda images: [compiled(images)[output] for output in range(3)]  # noqa: E731
    random = np.random.default_rng(0)
    for height, width in [*SIDES, *random.integers(1, 400, (12, 2)).tolist()]:
        pixels = random.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
        pixels[1] = pixels[1] // 128 * 255  # black and white: sums at both ends of the range
        canvases, part, corner = run(pixels)
        assert (canvases == np.stack([canvas.lay(Image.fromarray(one)) for one in pixels])).all(), (height, width)
        left, top, right, bottom = canvas.frame((width, height)).box
        assert (part.tolist(), corner.tolist()) == ([bottom - top, right - left], [top, left])


MASK = np.tri(90, 120, dtype=bool)
REGIONS = {
    "": None,
    "mask": RegionOfInterest(RegionConfig(mask="any.png"), MASK),
}


@pytest.fixture(scope="module")
def trained(few_cells, tmp_path_factory):
    """Return a function that trains a detector of one view and region on the normal cells."""
    manifest, root = few_cells
    normal = manifest["image_id"][manifest["anomaly_class"] == "OK"].tolist()

    def make(encoder, region="", config=None):
        cache = tmp_path_factory.mktemp("features")
        store = FeatureStore(cache, encoder, manifest, root, region=REGIONS[region])
        config = config or PatchcoreConfig(memory_size=256)
        return replace(train(encoder, config, store, normal, seed=0), threshold=THRESHOLD, region=REGIONS[region])

    return make


@pytest.mark.parametrize(("view", "region"), [("letterbox", ""), ("squeeze", "mask"), ("tiles", "mask")])
def test_views_and_regions_are_in_the_graph(view, region, trained, unseen, tmp_path):
    model = trained(VIEWS[view].model_copy(update={"layers": (1, 2)}), region)  # few layers: torch's export is slow
    size = (120, 90) if (view, region) == ("tiles", "mask") else None
    if size is not None:
        with pytest.raises(ConfigError, match="--size WIDTHxHEIGHT"):
            export(model, [Format.onnx], tmp_path)
        with pytest.raises(ConfigError, match="6 of 6 calibration images have another size than 120 × 90"):
            export(model, [Format.onnx], tmp_path, Precision.int8, unseen[1], size=size)
    export(model, list(Format), tmp_path, size=size)
    sizes = [(120, 90)] * 2 + [(90, 301), (301, 90), (64, 64), (1000, 700)]
    images = [np.asarray(Image.fromarray(one).resize(own)) for one, own in zip(unseen[1], sizes, strict=True)]
    if size is not None:
        images = images[:2]
    reference = predictor_session(model)
    for suffix in ("onnx", "xml"):
        exported = Exported.load(tmp_path / f"patchcore.{suffix}", threads=1)
        found = parity(reference, exported.session, images)
        assert found.passed and found.images == len(images), found
        if size is not None:
            with pytest.raises(DataError, match="exported for 120 × 90"):
                exported.read_image(unseen[1][0])
    ours, theirs = (list(one.predict(images)) for one in (Predictor(model), exported))
    assert [one.patch_map.shape for one in ours] == [one.patch_map.shape for one in theirs]
    assert [one.label for one in ours] == [one.label for one in theirs]
    if region:
        assert all((one.patch_map == 0).any() for one in theirs)


def test_a_vit_in_tiles_with_its_prefix_tokens_is_in_the_graph(tiny_vit, trained, unseen, tmp_path):
    encoder = tiny_vit.model_copy(update={"view": "tiles", "layers": (1,)})  # two blocks: torch's export is slow
    model = trained(encoder, config=DinomalyConfig(steps=3, batch_size=4, width=32, depth=2))
    export(model, list(Format), tmp_path)
    for suffix in ("onnx", "xml"):
        session = load_exported(tmp_path / f"dinomaly.{suffix}", threads=1)
        found = parity(predictor_session(model), session, unseen[1][:3])
        assert found.passed, found


def test_images_of_several_sizes_score_as_in_torch(model_files, few_cells, graphs):
    manifest, root = few_cells
    reference = predictor_session(Model.load(model_files["patchcore"]))
    pictures = [load_whole(root / path) for path in manifest["path"][manifest["anomaly_class"] != "OK"]]
    sizes = [(90, 301), (301, 90), (64, 64), (50, 40), (1000, 700), (299, 300)]
    images = [np.asarray(picture.resize(size)) for picture, size in zip(pictures, sizes, strict=True)]
    for suffix in ("onnx", "xml"):
        found = parity(reference, load_exported(graphs / f"patchcore.{suffix}"), images)
        assert found.passed and found.score <= 1e-3 * THRESHOLD.value, found


def test_the_graph_labels_and_maps_in_original_size(unseen, graphs):
    import onnxruntime

    session = onnxruntime.InferenceSession(graphs / "patchcore.onnx")
    images = unseen[1][:, :200]
    names = ("score", "label", "map", "patch_map")
    score, label, large, small = session.run(names, {"images": images})
    assert [["normal", "unsure", "defect"][one] for one in label] == THRESHOLD.labels(score).tolist()
    assert large.shape == images.shape[:3]
    assert small.min() - 1e-5 <= large.min() and large.max() <= small.max() + 1e-5
    given = {"threshold": -1, "unsure_low": 0, "unsure_high": -1}  # none is unsure
    lowest = {name: np.array(value, np.float32) for name, value in given.items()}
    assert session.run(["label"], {"images": images, **lowest})[0].tolist() == [2] * 6


@pytest.mark.parametrize("suffix", ["onnx", "xml"])
def test_predict_writes_the_same_from_a_graph_as_from_the_model(suffix, model_files, unseen, graphs, tmp_path):
    paths, _ = unseen
    (tmp_path / "broken.png").write_bytes(b"no image")
    paths = [*paths[:2], tmp_path / "broken.png"]
    model = replace(Model.load(model_files["patchcore"]), threshold=THRESHOLD)
    exported = Exported.load(graphs / f"patchcore.{suffix}")
    ours = predict(model, paths, tmp_path / "a", threshold=model.threshold)
    theirs = predict(exported, paths, tmp_path / "b", threshold=exported.threshold)
    pd.testing.assert_frame_equal(ours, theirs, atol=1e-4)
    names = [sorted(file.relative_to(tmp_path / one) for file in (tmp_path / one).rglob("*.*")) for one in "ab"]
    assert names[0] == names[1] and len(names[0]) == 4
    for name in names[0]:
        if name.suffix == ".png":
            pixels = [np.asarray(Image.open(tmp_path / one / name).convert("RGB")).astype(int) for one in "ab"]
            assert pixels[0].shape == pixels[1].shape and np.abs(pixels[0] - pixels[1]).max() <= 2


def test_an_exported_file_runs_without_torch(unseen, graphs, tmp_path):
    code = (
        "import sys\n"
        "from llbnad.cli import app\n"
        "app(standalone_mode=False)\n"
        "assert 'torch' not in sys.modules and 'timm' not in sys.modules\n"
    )
    file = shutil.copy(graphs / "patchcore.onnx", tmp_path / "alone.onnx")
    arguments = ["predict", file, unseen[0][0], "--fpr", "0.2", "--out", tmp_path / "out"]
    # not the tests' own `python`, which starts with torch imported
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "1 images scored" in done.stdout


def test_lower_precisions_are_judged_on_the_calibration_images(model_files, few_cells, unseen, graphs, tmp_path):
    manifest, root = few_cells
    normal = [np.asarray(load_whole(root / path)) for path in manifest["path"][manifest["anomaly_class"] == "OK"]]
    model = replace(Model.load(model_files["patchcore"]), threshold=THRESHOLD)
    reference = predictor_session(model)(unseen[1])[0]
    for precision, tolerance in (("float16", 2e-3), ("int8", 0.4)):
        written = export(model, [Format.onnx], tmp_path, Precision(precision), normal)
        scores = load_exported(written.files[Format.onnx])(unseen[1])[0]
        assert 0 < np.abs(scores - reference).max() < tolerance
        found = json.loads((tmp_path / f"patchcore.{precision}.json").read_text())["agreement"]
        assert found["images"] == 14 and found["changed"] == written.agreement.changed
        assert found["passed"] == (found["changed"] == 0) == ("WARNING" not in written.agreement.describe())
        share = 0.65 if precision == "float16" else 1
        assert written.files[Format.onnx].stat().st_size < share * (graphs / "patchcore.onnx").stat().st_size


def test_a_graph_refuses_what_it_cannot_hold(model_files, graphs, tmp_path):
    model = Model.load(model_files["padim"])
    with pytest.raises(ConfigError, match="needs images to calibrate on"):
        export(model, [Format.onnx], tmp_path, Precision.int8)
    with pytest.raises(ConfigError, match=r"device is 'cuda'"):
        Exported.load(graphs / "padim.onnx", "cuda")
    with pytest.raises(ModelMissingError, match="llbnad export"):
        Exported.load(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("text")
    with pytest.raises(DataError, match="is no exported detector"):
        Exported.load(tmp_path / "text.onnx")


def test_parity_sees_a_difference(model_files, unseen):
    model = Model.load(model_files["patchcore"])
    session = predictor_session(model)

    def shifted(images):
        score, patch_map = session(images)
        return score + 1e-3, patch_map

    found = parity(session, shifted, unseen[1])
    assert found.score == pytest.approx(1e-3, rel=1e-2) and found.map == 0 and not found.passed


def test_parity_with_nan_or_without_images_is_none(model_files, unseen):
    session = predictor_session(Model.load(model_files["patchcore"]))

    def broken(images):
        score, patch_map = session(images)
        return score * np.nan, patch_map * np.nan

    assert not parity(session, broken, unseen[1]).passed
    assert not parity(session, session, unseen[1][:0]).passed
    assert parity(session, session, unseen[1]).passed


def test_without_the_extra_the_error_names_it(model_files, tmp_path):
    code = (
        "import sys, importlib.util as util\n"
        "found = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name.startswith('onnx') else found(name, *rest)\n"
        "from llbnad.cli import main\n"
        "main()"
    )
    done = python("-c", code, "export", model_files["padim"], "--out", tmp_path / "out")
    assert done.returncode == 2 and "pip install 'llbnad[export]'" in done.stderr
