"""`llbnad run`: purify a training set, train the detector on it, compare it, and write all of it to a folder."""

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llbnad.commands.common_options import (
    CATEGORY,
    IMAGE_DIR,
    IMAGES,
    INTENSITY,
    LARGEST,
    PAGES,
    ROOT,
    VARIANT,
    Source,
)
from llbnad.config import METHOD, USUAL_PIXELS, InjectedNoise, Noise, NoNoise, Runtime, parse
from llbnad.detectors import DETECTORS
from llbnad.errors import ConfigError, TooFewImagesError
from llbnad.options import dataset_of, merged, source_of, view_options
from llbnad.policies import POLICIES
from llbnad.scenario import ScenarioSettings, make_settings

if TYPE_CHECKING:
    from llbnad.data.sources import Scan
    from llbnad.two_stage import TwoStageRun

DEFAULTS = ScenarioSettings()


class Protocol(Enum):  # not a StrEnum: its member `replace` would shadow str.replace
    """Noise protocols."""

    replace = "replace"
    add = "add"
    as_is = "as_is"


def _option(default: object, help: str, min: int | None = None) -> Any:
    """Return an option that is None unless it is given, so that it does not override a file; help shows `default`."""
    return typer.Option(help=help, show_default=str(default), min=min)


def run(
    out: Annotated[Path, typer.Option(help="Folder for tables, model and pictures.")],
    images: IMAGES = None,
    source: Annotated[Source | None, typer.Option(help="Kind of data set.", show_default="elpv")] = None,
    root: ROOT = None,
    category: CATEGORY = None,
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
        Protocol | None,
        typer.Option(
            help="replace and add inject labelled anomalies; as_is takes the data as it is.",
            show_default="as_is with IMAGES, else replace",
        ),
    ] = None,
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

    kind, root, category = source_of(images, source, root, category, Source.elpv)
    dataset = dataset_of(kind, root, category, variant, image_dir, intensity, pages, max_pixels, "llbnad run")
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
    walked = root is not None and kind != Source.manifest  # a manifest names its images
    if root is not None and walked and out.resolve().is_relative_to(root.resolve()):
        raise ConfigError(f"--out {out} lies in {root}: the next run would take its pictures for images")
    usual = Protocol.replace if images is None else Protocol.as_is
    noise = _noise(protocol or usual, noise_ratio, max_noise_ratio)

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
    tables = "metrics.json, comparison.csv, suspects.csv, scores.csv, scores.parquet, kept.parquet, folders.csv"
    typer.echo(f"written to {out}: {tables}, plots/")


def _noise(protocol: Protocol, ratio: float, max_ratio: float | None) -> Noise:
    if protocol is Protocol.as_is:
        if ratio or max_ratio:
            option = f"--noise-ratio {ratio:g}" if ratio else f"--max-noise-ratio {max_ratio:g}"
            raise ConfigError(
                f"{option} has no effect with protocol as_is, which takes the images as they are: leave it out, or "
                "choose --protocol replace"
            )
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
        away = "rejected ones" if result.purified.by_evidence else "ones left out"
        yield (
            f"both rates are of images like the kept ones; normal images like the {left} {away} ({share:.1%}) "
            "often exceed both thresholds, which comes on top"
        )
    yield from (f"note: {note}" for note in result.notes)
    kept, trained = len(result.purified.kept), len(result.scores)
    if kept < trained / 2:
        yield f"WARNING: only {kept} of {trained} training images were kept: look at plots/purification"
