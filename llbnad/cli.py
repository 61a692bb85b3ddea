"""Look at images (`lint`), train an anomaly detector on them, defects among them (`run`), use it (`predict` …)."""

import sys
from collections.abc import Iterator
from enum import Enum, StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from llbnad.config import METHOD, USUAL_PIXELS, Files, InjectedNoise, Noise, NoNoise, Runtime, parse
from llbnad.detectors import DETECTORS
from llbnad.errors import ConfigError, LlbnadError, TooFewImagesError, printable
from llbnad.inference.exported import Exported, Format, is_exported
from llbnad.inference.graph.precision import Precision
from llbnad.options import dataset_of, merged, view_options
from llbnad.policies import POLICIES
from llbnad.scenario import ScenarioSettings, make_settings
from llbnad.utils.pixel_limit import limit_pixels

if TYPE_CHECKING:
    from llbnad.data.sources import Scan
    from llbnad.two_stage import TwoStageRun

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)


class Source(StrEnum):
    """Kinds of data sets."""

    elpv = "elpv"
    real_iad = "real_iad"
    image_folder = "image_folder"
    manifest = "manifest"


class Protocol(Enum):  # not a StrEnum: its member `replace` would shadow str.replace
    """Noise protocols."""

    replace = "replace"
    add = "add"
    as_is = "as_is"


DEFAULTS = ScenarioSettings()
PLUGINS = typer.Option(
    "--plugins", help="Import a module:Class that the model file names; only for files that you trust."
)
HEAT_MAPS = typer.Option("--heatmaps/--no-heatmaps", help="Write one heat map per image, as large as the image.")
MIN_AREA = typer.Option(
    min=1, help="Fewest pixels of a region, of the original image.", show_default="what the model was calibrated for"
)
COCO = typer.Option(help="JSON file to write the regions to, in COCO's form.")
PRECISION = typer.Option(help="float32; float16 halves the file; int8 computes the encoder in 8 bits.")
CALIBRATION_IMAGES = 64  # looked at for int8 and float16
LARGEST = typer.Option(help="Most pixels of an image, width × height; larger ones are refused.")


SOURCE = Annotated[Source, typer.Option(help="Kind of data set.")]
ROOT = Annotated[
    Path | None, typer.Option(help="Folder of the data set; manifest: its CSV or JSON-lines file (elpv needs none).")
]
CATEGORY = Annotated[str, typer.Option(help="Product; for elpv: mono or poly.")]
VARIANT = Annotated[str, typer.Option(help="real_iad: the JSON set.")]
IMAGE_DIR = Annotated[str, typer.Option(help="real_iad: the image folder.")]
INTENSITY = Annotated[
    str, typer.Option(help="Values shown as black and white, above 8 bits: auto, full, or LOW,HIGH such as 0,4095.")
]
PAGES = Annotated[str, typer.Option(help="A file of several pages: error (left out), first (its first page) or each.")]


def _option(default: object, help: str, min: int | None = None) -> Any:
    """Return an option that is None unless it is given, so that it does not override a file; help shows `default`."""
    return typer.Option(help=help, show_default=str(default), min=min)


@app.command()
def run(
    out: Annotated[Path, typer.Option(help="Folder for tables, model and pictures.")],
    source: SOURCE = Source.elpv,
    root: ROOT = None,
    category: CATEGORY = "mono",
    variant: VARIANT = "realiad_jsons",
    image_dir: IMAGE_DIR = "realiad_1024",
    intensity: INTENSITY = "auto",
    pages: PAGES = "error",
    noise_ratio: Annotated[float, typer.Option(help="α, share of anomalous training samples, in [0, 1).")] = 0.0,
    max_noise_ratio: Annotated[
        float | None,
        typer.Option(
            help="Largest α of a comparison of runs: the samples that it needs are never tested by any of them.",
            show_default="the noise ratio",
        ),
    ] = None,
    protocol: Annotated[
        Protocol, typer.Option(help="replace and add inject labelled anomalies; as_is takes the data as it is.")
    ] = Protocol.replace,
    config: Annotated[
        Path | None, typer.Option(help="YAML or JSON file of settings; options below and --set override it.")
    ] = None,
    detector: Annotated[
        str | None,
        _option(DEFAULTS.detector.name, f"The final detector: {', '.join(DETECTORS.names)}, or your own module:Class."),
    ] = None,
    subsets: Annotated[
        str | None, _option(DEFAULTS.subsets, "T, number of sub-models; auto: 10 for few images, else 5.")
    ] = None,
    aggregation: Annotated[
        str | None, _option(DEFAULTS.aggregation, "oof_mean, mean, robust_mean, max, rank_mean or max_var.")
    ] = None,
    policy: Annotated[
        str | None,
        _option(DEFAULTS.selection.policy, f"Selection policy: {', '.join(POLICIES.names)}, or your own module:Class."),
    ] = None,
    keep: Annotated[float | None, typer.Option(help="Keep this share: short for policy fraction.")] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Any other setting, e.g. detector.memory_size=4096; repeatable."
        ),
    ] = None,
    view: Annotated[
        str | None,
        _option(
            DEFAULTS.encoder.view,
            "squeeze fills a square; letterbox keeps the aspect ratio; tiles keeps it on many squares.",
        ),
    ] = None,
    tiles: Annotated[
        str | None, typer.Option(help="Rows and columns of tiles, e.g. 2x3; implies --view tiles.")
    ] = None,
    overlap: Annotated[
        float | None, _option(DEFAULTS.encoder.overlap, "Overlap of tiles, as a share of a tile's side.")
    ] = None,
    region: Annotated[
        Path | None,
        typer.Option(help="What counts: an image that is white there, or YAML / JSON with a polygon (docs/views.md)."),
    ] = None,
    border: Annotated[
        float | None,
        typer.Option(help="Ignored border, as a share of the shorter side; in pixels if the region's unit is pixels."),
    ] = None,
    review: Annotated[Path | None, typer.Option(help="CSV of people's verdicts, which override the policy.")] = None,
    target_fpr: Annotated[
        float | None,
        _option(DEFAULTS.calibration.target_fpr, "Share of normal images that may be called defects, in (0, 1)."),
    ] = None,
    comparators: Annotated[
        bool | None,
        typer.Option(
            "--comparators/--no-comparators", help="Train none / oracle / random as well.", show_default="comparators"
        ),
    ] = None,
    seed: Annotated[int | None, _option(DEFAULTS.seed, "Seed of noise, subsets and detectors.", min=0)] = None,
    suspects: Annotated[int | None, _option(DEFAULTS.suspects, "Images on a contact sheet.", min=0)] = None,
    cache: Annotated[Path | None, typer.Option(help="Feature cache (default: OUT/features).")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 = all cores.")] = 0,
    max_pixels: Annotated[int, LARGEST] = USUAL_PIXELS,
) -> None:
    """Purify a training set, train the final detector on it and compare with none / oracle / random."""
    from llbnad.data.canvas import view_line
    from llbnad.data.contaminate import contaminate
    from llbnad.data.region_of_interest import RegionOfInterest
    from llbnad.data.sources import read_source
    from llbnad.features.store import FeatureStore
    from llbnad.two_stage import run_two_stage, verdicts_of, write_run
    from llbnad.utils.files import write_csv
    from llbnad.utils.runtime import prepare

    dataset = dataset_of(source.value, root, category, variant, image_dir, intensity, pages, max_pixels, "llbnad run")
    options = {
        "detector.name": detector,
        "selection.policy": policy if keep is None else "fraction",
        "selection.keep": keep,
        **view_options(view, tiles, overlap, region, border),
        "subsets": int(subsets) if subsets is not None and subsets.isdecimal() else subsets,
        "aggregation": aggregation,
        "review": None if review is None else str(review),
        "calibration.target_fpr": target_fpr,
        "comparators": None if comparators is None else list(DEFAULTS.comparators) if comparators else [],
        "seed": seed,
        "suspects": suspects,
    }
    settings = make_settings(merged(config, options, assignments or []), "llbnad run")
    walked = root is not None and source is not Source.manifest  # a manifest names its images
    if root is not None and walked and out.resolve().is_relative_to(root.resolve()):
        raise ConfigError(f"--out {out} lies in --root {root}: the next run would take its pictures for images")
    noise = _noise(protocol, noise_ratio, max_noise_ratio)

    runtime = Runtime(device=device, threads=threads)
    target = str(prepare(runtime))
    scan, image_root = read_source(dataset, None if root is None else Path(dataset.root))
    write_csv(scan.rejected, out / "left_out.csv")
    write_csv(scan.folders, out / "folders.csv")
    for line in _read(scan):
        typer.echo(line)
    noisy = contaminate(scan.manifest, noise, settings.seed)
    store = FeatureStore(
        cache or out / "features",
        settings.encoder,
        noisy,
        image_root,
        target,
        runtime.batch_size,
        region=RegionOfInterest.read(settings.region),
    )
    if store.frames:
        typer.echo(view_line(store.canvas, noisy))
    verdicts = verdicts_of(settings)
    try:
        result = run_two_stage(noisy, store, image_root, settings, verdicts)
    except TooFewImagesError as error:
        raise TooFewImagesError("; ".join([str(error), *_left_out(scan)])) from None
    drawn = write_run(result, store, image_root, settings, out, scan.pixel_notes)
    for line in [*_summary(result), *([drawn.line] if drawn else [])]:
        typer.echo(line)
    tables = "metrics.json, comparison.csv, suspects.csv, scores.parquet, kept.parquet, folders.csv"
    typer.echo(f"written to {out}: {tables}, plots/")


def _noise(protocol: Protocol, ratio: float, max_ratio: float | None) -> Noise:
    if protocol is Protocol.as_is:
        return NoNoise()
    content = {"protocol": protocol.value, "ratio": ratio, "max_ratio": ratio if max_ratio is None else max_ratio}
    noise: Noise = parse(InjectedNoise, content, "llbnad run")
    return noise


def _read(scan: "Scan") -> Iterator[str]:
    """Yield the lines on the images, which are printed before the training, because it may fail for want of images."""
    yield from [*scan.notes, *scan.pixel_notes]
    yield from (f"in doubt: {line}" for line in scan.doubts)
    yield from _left_out(scan)


def _left_out(scan: "Scan") -> Iterator[str]:
    if len(scan.rejected):
        reasons = ", ".join(f"{count} {reason}" for reason, count in scan.rejected["reason"].value_counts().items())
        yield f"{len(scan.rejected)} files were left out ({reasons}): left_out.csv says why"


def _summary(result: "TwoStageRun") -> Iterator[str]:
    """Yield the lines that a run prints: the comparison, and facts to know before one trusts it."""
    columns = ["method", "image_auroc", "pixel_auroc", "aupro", "n_selected", "contamination_after"]
    yield result.evaluation.comparison[columns].to_string(index=False, float_format="%.3f", na_rep="–")
    yield from result.evaluation.caveats()
    if result.evaluation.threshold is not None:
        yield result.evaluation.threshold.describe()
    if (pixels := result.models[METHOD].pixel_threshold) is not None:
        yield pixels.describe()
    if result.evaluation.threshold is not None and (left := len(result.purified.rejected)):
        share = left / len(result.scores)
        yield (
            f"both rates are of images like the kept ones; normal images like the {left} rejected ones ({share:.1%}) "
            "often exceed both thresholds, which comes on top"
        )
    yield from (f"note: {note}" for note in result.notes)
    kept, trained = len(result.purified.kept), len(result.scores)
    if kept < trained / 2:
        yield f"WARNING: only {kept} of {trained} training images were kept: look at plots/purification"


@app.command()
def lint(
    source: SOURCE = Source.image_folder,
    root: ROOT = None,
    category: CATEGORY = "mono",
    variant: VARIANT = "realiad_jsons",
    image_dir: IMAGE_DIR = "realiad_1024",
    intensity: INTENSITY = "auto",
    pages: PAGES = "error",
    max_pixels: Annotated[int, LARGEST] = USUAL_PIXELS,
    out: Annotated[Path | None, typer.Option(help="CSV file for the list of all findings.")] = None,
) -> None:
    """Read a data set without training and report all that is odd. Exit code 1: something needs a decision."""
    from llbnad.data.lint import inspect
    from llbnad.data.sources import read_source
    from llbnad.utils.files import write_csv

    dataset = dataset_of(source.value, root, category, variant, image_dir, intensity, pages, max_pixels, "llbnad lint")
    scan, _ = read_source(dataset, None if root is None else Path(dataset.root))
    report = inspect(scan)
    for line in report.lines:
        typer.echo(line)
    if out is not None:
        write_csv(report.findings, out)
    if report.needs_decision:
        raise typer.Exit(1)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="Model file (.safetensors), or exported graph (.onnx, .xml).")],
    images: Annotated[list[Path], typer.Argument(help="Image files or folders.")],
    out: Annotated[Path, typer.Option(help="Folder for predictions.csv, regions.jsonl and heatmaps/.")],
    fpr: Annotated[
        float | None,
        typer.Option(
            help="Rate of false positives to accept, in (0, 1); more find more defects. Default: the model's."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 = all cores.")] = 0,
    plugins: Annotated[bool, PLUGINS] = False,
    pages: Annotated[
        str, typer.Option(help="A file of several pages: error (its row says so), first (its first page) or each.")
    ] = "error",
    heatmaps: Annotated[bool, HEAT_MAPS] = True,
    max_pixels: Annotated[int, LARGEST] = USUAL_PIXELS,
    min_area: Annotated[int | None, MIN_AREA] = None,
    coco: Annotated[Path | None, COCO] = None,
) -> None:
    """Score images, call them normal, unsure or defect, and find regions. Write tables, and one heat map per image."""
    from llbnad.inference.predict import find_images, refuse_own_pictures, threshold_of
    from llbnad.inference.predict import predict as predict_images
    from llbnad.inference.region_files import pixel_threshold_of, region_lines
    from llbnad.model.model import Model
    from llbnad.model.threshold import DEFECT_LABEL, UNSURE_LABEL
    from llbnad.utils.runtime import prepare

    paths = find_images(images, parse(Files, {"pages": pages}, "llbnad predict").pages)
    refuse_own_pictures(images, paths, out)
    limit_pixels(max_pixels)
    loaded: Model | Exported
    if is_exported(model):  # without torch, whose import takes seconds
        target, loaded = "cpu", Exported.load(model, device, threads)
    else:
        target = str(prepare(Runtime(device=device, threads=threads)))
        loaded = Model.load(model, target, plugins)
    threshold = threshold_of(loaded, fpr)
    pixels = pixel_threshold_of(loaded, fpr, wanted=min_area is not None or coco is not None)
    table = predict_images(
        loaded,
        paths,
        out,
        target,
        threshold=threshold,
        heatmaps=heatmaps,
        pixels=pixels,
        min_area=min_area,
        coco=coco,
    )
    failed = int((table["error"] != "").sum())
    defects, unsure = (int((table["label"] == label).sum()) for label in (DEFECT_LABEL, UNSURE_LABEL))
    called = "" if threshold is None else f" ({defects} called defects, {unsure} unsure)"
    typer.echo(f"{len(table) - failed} images scored{called}, {failed} unreadable; written to {out}")
    typer.echo(threshold.describe() if threshold is not None else "the model has no threshold: scores only")
    for line in region_lines(table, pixels, min_area):
        typer.echo(line)
    if failed == len(table):
        raise LlbnadError("none of the images could be read; predictions.csv says why")


@app.command()
def sensitivity(
    model: Annotated[Path, typer.Argument(help="Model file (.safetensors).")],
    images: Annotated[list[Path], typer.Argument(help="Normal images that the model has not learnt.")],
    out: Annotated[Path, typer.Option(help="Folder for tables and pictures.")],
    count: Annotated[int, typer.Option(min=1, max=1000, help="Most images to draw on, chosen by their content.")] = 24,
    sizes: Annotated[str, typer.Option(help="Sizes in pixels, such as 4,8,16; auto: from the images' size.")] = "auto",
    contrasts: Annotated[str, typer.Option(help="Changes of grey value as shares of 255, such as 0.1,0.2.")] = "0.2",
    fpr: Annotated[float | None, typer.Option(help="Rate of false positives, in (0, 1). Default: the model's.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed draws in other places.")] = 0,
    robustness: Annotated[
        bool, typer.Option("--robustness/--no-robustness", help="Measure false positives after harmless changes too.")
    ] = True,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 = all cores.")] = 0,
    plugins: Annotated[bool, PLUGINS] = False,
    max_pixels: Annotated[int, LARGEST] = USUAL_PIXELS,
) -> None:
    """Draw synthetic defects on normal images and say which the model finds, and what alarms it without reason."""
    from llbnad.inference.predict import Predictor, find_images, refuse_own_pictures, threshold_of
    from llbnad.model.model import Model
    from llbnad.sensitivity.command import settings_of, write_sensitivity
    from llbnad.utils.runtime import prepare

    settings = settings_of(count, sizes, contrasts)
    paths = find_images(images)
    refuse_own_pictures(images, paths, out)
    limit_pixels(max_pixels)
    target = str(prepare(Runtime(device=device, threads=threads)))
    loaded = Model.load(model, target, plugins)
    threshold = threshold_of(loaded, fpr)
    for line in write_sensitivity(Predictor(loaded, target), paths, threshold, settings, out, seed, robustness):
        typer.echo(line)
    typer.echo(f"written to {out}")


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="Model file (.safetensors).")],
    out: Annotated[Path, typer.Option(help="Folder for the graph and its JSON.")],
    format: Annotated[list[Format], typer.Option(help="onnx or openvino; may be given twice.")] = [Format.onnx],  # noqa: B006
    plugins: Annotated[bool, PLUGINS] = False,
    precision: Annotated[Precision, PRECISION] = Precision.float32,
    calibration: Annotated[
        Path | None,
        typer.Option(help="Folder of normal images: int8 needs them, float16 is judged on them."),
    ] = None,
) -> None:
    """Write one graph from an image of any size to score, label and map (needs the extra `export`)."""
    from llbnad.data.images import load_whole
    from llbnad.inference.export import export as export_model
    from llbnad.inference.predict import find_images
    from llbnad.model.model import Model

    loaded = Model.load(model, plugins=plugins)
    paths = [] if calibration is None else find_images([calibration])[:CALIBRATION_IMAGES]
    images = [np.asarray(load_whole(path, loaded.window)) for path in paths]
    written = export_model(loaded, format, out, precision, images)
    typer.echo(f"written: {', '.join(str(path) for path in written.files.values())}")
    if written.agreement is not None:
        typer.echo(written.agreement.describe())


def main() -> None:
    """Run the command. Bad input ends it with a one-line message and exit code 2."""
    try:
        app()
    except LlbnadError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # --out is a file, a folder is not writable, or the disk is full
        print(f"error: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
