"""Make the pictures of the README and of docs/, from the solar cells that every installation brings.

    python -m benchmarks.pictures              # minutes on two cores; --only NAME for one picture, --out FOLDER

Features that the pipeline has encoded (data/cache/features) are not encoded again.

The demo's scenario with a fifth of the training images defective goes through both stages; every picture is drawn by
the code that draws it for a user. Screenshots of pages need Chromium and are left out, with a line, where it is not.
The cells are those of the ELPV data set (CC BY-NC-SA 4.0), and so are the pictures that show some.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from PIL import Image

from llbnad.config import (
    METHOD,
    ElpvDataset,
    EncoderConfig,
    Noise,
    RegionConfig,
    Runtime,
    SensitivityConfig,
)
from llbnad.data.canvas import off_canvas
from llbnad.data.contaminate import contaminate
from llbnad.data.images import load_rgb
from llbnad.data.manifest import is_anomalous, training_images
from llbnad.data.region_of_interest import RegionOfInterest
from llbnad.data.sources import read_source
from llbnad.evaluation.figures import FOUND_COLOUR, NORMAL_COLOUR, Tile, contact_sheet
from llbnad.evaluation.heat_scale import HeatScale
from llbnad.evaluation.report import purification_plots
from llbnad.features.image_vectors import image_vectors
from llbnad.features.store import FeatureStore
from llbnad.inference.export import export
from llbnad.inference.exported import Exported, ExtraMissingError, Format
from llbnad.inference.graph.precision import Precision
from llbnad.inference.predict import SHEET, Predictor, predict
from llbnad.inference.prediction import Prediction
from llbnad.model.calibrate import calibrate
from llbnad.model.model import Model, train
from llbnad.model.threshold import Threshold
from llbnad.monitoring.control_chart import control_chart, draw_chart, promised_shares
from llbnad.review.decision import decided
from llbnad.review.page import GRID, build_suspects, choose_suspects, near_duplicates, review_page
from llbnad.scenario import ScenarioSettings
from llbnad.sensitivity.report import CURVES, DRAWN, measure
from llbnad.two_stage import TwoStageRun, run_two_stage
from llbnad.utils.hashing import stable_shuffle
from llbnad.utils.runtime import prepare
from orchestration.pipeline.params import load_params

ROOT = Path(__file__).resolve().parents[1]
OUT, CACHE = ROOT / "docs" / "pictures", ROOT / "data" / "cache" / "features"
SCENARIO = "elpv_mono_a20"  # of params.yaml
SIDE, QUALITY = 224, 80  # pixels of a thumbnail; of JPEG files
LEARNT, CALIBRATED = 80, 24  # images of a view's detector; images that int8 is calibrated on
SHOWN_SUSPECTS, DRAWN_ON = 18, 24
PER_HOUR, HOURS, BAD_HOURS = 12, 14, (11, 12)  # of the control chart
WINDOW = "1400,820"  # of a screenshot
CALM = HeatScale(0.5, 1.0, 1.5, "threshold of each")  # of maps divided by their model's threshold

app = typer.Typer(add_completion=False, help=__doc__)


class LeftOutError(Exception):
    """A picture cannot be made here."""


@dataclass(frozen=True)
class Demo:
    """The demo's scenario after both stages."""

    noisy: pd.DataFrame
    store: FeatureStore
    root: Path
    settings: ScenarioSettings
    run: TwoStageRun
    work: Path  # an empty folder
    cache: Path  # of features

    @property
    def model(self) -> Model:
        """The final detector."""
        return self.run.models[METHOD]

    @property
    def threshold(self) -> Threshold:
        """The final detector's threshold."""
        assert self.model.threshold is not None  # the settings calibrate one
        return self.model.threshold

    def tested(self, anomalous: bool) -> pd.DataFrame:
        """Return the manifest rows of the normal or anomalous test images, the highest score first."""
        rows = self.noisy[(self.noisy["split"] == "test") & (is_anomalous(self.noisy) == anomalous)]
        scores = self.run.evaluation.scores[METHOD].of(rows["image_id"].tolist())
        return rows.assign(score=scores).sort_values(["score", "image_id"], ascending=[False, True])

    def paths(self, rows: pd.DataFrame) -> list[Path]:
        """Return the files of manifest rows."""
        return [self.root / path for path in rows["path"]]


def scores_and_suspects(demo: Demo, out: Path) -> None:
    """Draw the histogram of stage 1 and its suspects."""
    images = training_images(demo.noisy)
    scored = images.merge(demo.run.scores["score"].reset_index(), on="image_id", validate="1:1")
    shown = demo.run.scores["score"].nlargest(SHOWN_SUSPECTS).index
    heat = off_canvas({one: demo.run.heat[one] for one in shown}, demo.store.frames)
    purification_plots(scored, demo.run.purified, heat, demo.root, demo.work, demo.settings.aggregation)
    shutil.copyfile(demo.work / "scores.png", out / "scores.png")
    as_jpeg(demo.work / "suspects.png", out / "suspects.jpg")


def regions(demo: Demo, out: Path) -> None:
    """Draw what `llbnad predict` says of test images: defects from the surest to the faintest, and normal ones."""
    defects, normal = demo.tested(True), demo.tested(False)
    chosen = pd.concat([evenly(defects, 8), evenly(normal, 4)])
    predict(demo.model, demo.paths(chosen), demo.work, threshold=demo.threshold, pixels=demo.model.pixel_threshold)
    as_jpeg(demo.work / SHEET, out / "regions.jpg")


def views(demo: Demo, out: Path) -> None:
    """Draw the same defects as detectors of three views see them."""
    learnt = sorted(stable_shuffle(demo.run.purified.kept, 0, "views")[:LEARNT])
    rows = demo.noisy[demo.noisy["image_id"].isin(learnt)]
    defects = evenly(demo.tested(True).head(30), 2)
    inside = RegionOfInterest(RegionConfig(border=0.1))
    ways = {
        "squeeze": (EncoderConfig(), None),
        "tiles 2 × 2": (EncoderConfig(view="tiles", tiles=(2, 2)), None),
        "squeeze, border 10 %": (EncoderConfig(), inside),
    }
    tiles: list[list[Tile]] = [[] for _ in range(len(defects))]
    for name, (encoder, region) in ways.items():
        store = FeatureStore(demo.cache, encoder, rows, demo.root, region=region)
        detector = demo.settings.detector
        threshold, _ = calibrate(rows, store, encoder, detector, demo.settings.calibration, 0, region)
        assert threshold is not None
        model = replace(train(encoder, detector, store, learnt, 0), region=region)
        found = Predictor(model).predict(demo.paths(defects), threshold)
        for place, (path, one) in enumerate(zip(demo.paths(defects), found, strict=True)):
            tiles[place].append(tile(path, one, threshold, name))
    title = "Two defects under three views. Each detector has a threshold of its own; colours begin there"
    contact_sheet([one for group in tiles for one in group], demo.work / "views.png", title, CALM)
    as_jpeg(demo.work / "views.png", out / "views.jpg")


def exported(demo: Demo, out: Path) -> None:
    """Draw the same images by the model file, by its ONNX graph, and in int8."""
    known = [np.asarray(load_rgb(path)) for path in demo.paths(demo.tested(False).tail(CALIBRATED))]
    defects = evenly(demo.tested(True).head(30), 2)
    paths = demo.paths(defects)
    try:
        graph = Exported.load(export(demo.model, [Format.onnx], demo.work).files[Format.onnx])
        written = export(demo.model, [Format.onnx], demo.work, Precision.int8, known)
    except ExtraMissingError as error:
        raise LeftOutError(str(error)) from None
    ways = {"model file": Predictor(demo.model), "ONNX": graph, "ONNX, int8": Exported.load(written.files[Format.onnx])}
    found = {name: list(one.predict(paths, demo.threshold)) for name, one in ways.items()}
    tiles = [
        tile(path, ones[place], demo.threshold, name)
        for place, path in enumerate(paths)
        for name, ones in found.items()
    ]
    title = "Two defects as three forms of one detector see them"
    contact_sheet(tiles, demo.work / "export.png", title, CALM)
    as_jpeg(demo.work / "export.png", out / "export.jpg")


def sensitivity(demo: Demo, out: Path) -> None:
    """Draw the share of synthetic defects that is found, and the drawings on one image."""
    rows = demo.tested(False)
    chosen = sorted(stable_shuffle(rows["image_id"], 0, "sensitivity")[:DRAWN_ON])
    paths = dict(zip(rows["image_id"], demo.paths(rows), strict=True))
    images, sides = {one: paths[one] for one in chosen}, [300] * len(chosen)
    settings = SensitivityConfig(images=DRAWN_ON, contrasts=(0.2, 0.1, 0.4))
    measure(Predictor(demo.model), images, sides, settings, demo.threshold, demo.work, "normal test images")
    shutil.copyfile(demo.work / CURVES, out / "sensitivity.png")
    as_jpeg(demo.work / DRAWN, out / "synthetic_defects.jpg")


def chart(demo: Demo, out: Path) -> None:
    """Draw a control chart of test images in random order, in made-up hours, in two of which many are defects."""
    normal, defects = (stable_shuffle(demo.tested(one)["image_id"], 0, "chart") for one in (False, True))
    queue = {False: list(normal), True: list(defects)}
    rows = []
    for hour in range(HOURS):
        for place in range(PER_HOUR):
            bad = place % 3 != 0 if hour in BAD_HOURS else place == 0 and hour % 4 == 0
            if queue[bad]:
                rows.append((f"2026-03-02T{6 + hour:02d}:00", queue[bad].pop()))
    images = pd.DataFrame(rows, columns=["hour", "image_id"])
    scores = demo.run.evaluation.scores[METHOD].of(images["image_id"].tolist())
    images = images.assign(model="demo", label=demo.threshold.labels(scores))
    title = "The demo's test images in made-up hours"
    draw_chart(control_chart(images, {"demo": promised_shares(demo.threshold)}), out / "control_chart.png", title)


def review(demo: Demo, out: Path) -> None:
    """Photograph the review page of the demo, with three verdicts already in the review file."""
    scores, purified = demo.run.scores, demo.run.purified
    ranked = scores["score"].sort_values(ascending=False).index
    kept = [one for one in ranked if one in set(purified.kept)]
    verdicts = {ranked[1]: "normal", kept[0]: "defect", kept[2]: "exclude"}
    reasons = choose_suspects(scores, purified, verdicts, 24)
    ids = sorted(reasons.index)
    groups = near_duplicates(ids, image_vectors(demo.store, ids, GRID, "near-duplicates"))
    heat = {one: demo.run.heat[one] for one in ids}
    decision = decided(scores["score"], purified, demo.settings.aggregation)
    suspects = build_suspects(training_images(demo.noisy), scores, reasons, decision, groups, heat, demo.root)
    page = review_page(SCENARIO, suspects, verdicts, decision, decision.scale(heat), demo.run.notes)
    (demo.work / "review.html").write_text(page, encoding="utf-8")
    photograph(demo.work / "review.html", demo.work, out / "review_page.jpg")


PICTURES: dict[str, Callable[[Demo, Path], None]] = {
    "suspects": scores_and_suspects,
    "regions": regions,
    "views": views,
    "export": exported,
    "sensitivity": sensitivity,
    "control_chart": chart,
    "review": review,
}


def tile(path: Path, one: Prediction, threshold: Threshold, name: str) -> Tile:
    """Return an image with its map divided by the threshold, so that maps of several models share a scale."""
    assert one.patch_map is not None and one.score is not None  # the cells can be read
    image = np.asarray(load_rgb(path).resize((SIDE, SIDE)))
    colour = NORMAL_COLOUR if one.label == "normal" else FOUND_COLOUR
    caption = f"{one.label} · {one.score / threshold.value:.3f} × threshold"
    return Tile(image, one.patch_map / threshold.value, caption, colour, name=name)


def evenly(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return `count` rows from the first to the last."""
    return rows.iloc[np.linspace(0, len(rows) - 1, count).round().astype(int)]


def as_jpeg(picture: Path, out: Path) -> None:
    """Write a PNG of photos as JPEG, which is a fraction of its size."""
    with Image.open(picture) as image:
        image.convert("RGB").save(out, quality=QUALITY, optimize=True)


def photograph(page: Path, work: Path, out: Path) -> None:
    """Write a screenshot of a page.

    Raises:
        LeftOutError: there is no Chromium.
    """
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise LeftOutError("a screenshot needs Chromium (apt install chromium)")
    arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={WINDOW}",
                 "--disable-background-networking", f"--user-data-dir={work / 'profile'}",
                 f"--screenshot={work / 'page.png'}"]  # fmt: skip
    subprocess.run([chromium, *arguments, page.resolve().as_uri()], check=True, capture_output=True, timeout=120)
    as_jpeg(work / "page.png", out)


def demo_of(settings: ScenarioSettings, noise: Noise, work: Path, cache: Path) -> Demo:
    """Send the solar cells of the scenario through both stages."""
    scan, root = read_source(ElpvDataset(), None)
    noisy = contaminate(scan.manifest, noise, settings.seed)
    store = FeatureStore(cache, settings.encoder, noisy, root, str(prepare(Runtime(device="cpu"))))
    run = run_two_stage(noisy, store, root, settings)
    return Demo(noisy, store, root, settings, run, work, cache)


@app.command()
def main(
    only: Annotated[list[str] | None, typer.Option(help=f"Any of {', '.join(PICTURES)}; repeatable.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the pictures.")] = OUT,
    cache: Annotated[Path, typer.Option(help="Feature cache (default: the pipeline's).", show_default=False)] = CACHE,
) -> None:
    """Make the pictures, and say which were left out and why."""
    scenario = load_params(ROOT / "params.yaml").scenario(SCENARIO)
    make(only or list(PICTURES), out, scenario.model_copy(update={"comparators": ()}), scenario.noise, cache)


def make(wanted: Sequence[str], out: Path, settings: ScenarioSettings, noise: Noise, cache: Path) -> None:
    """Make the pictures that are wanted, by name, into a folder."""
    if unknown := set(wanted) - set(PICTURES):
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: expected some of {', '.join(PICTURES)}")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        demo = demo_of(settings, noise, Path(folder), cache)
        for name in wanted:
            try:
                PICTURES[name](demo, out)
            except LeftOutError as error:
                print(f"{name} left out: {error}")
            else:
                print(f"{name}: done")


if __name__ == "__main__":
    app()
