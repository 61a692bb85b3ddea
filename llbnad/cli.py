"""Train an anomaly detector from images with unlabelled defects (`run`), and use it (`predict`, `export`)."""

import sys
from collections.abc import Iterator
from enum import Enum, StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llbnad.config import Dataset, InjectedNoise, Noise, NoNoise, Runtime, parse
from llbnad.detectors import DETECTORS
from llbnad.errors import ConfigError, LlbnadError
from llbnad.inference.export import Format
from llbnad.options import merged
from llbnad.policies import POLICIES
from llbnad.scenario import ScenarioSettings, make_settings

if TYPE_CHECKING:
    from llbnad.data.sources import Scan
    from llbnad.two_stage import TwoStageRun

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)


class Source(StrEnum):
    """Kinds of data sets."""

    elpv = "elpv"
    real_iad = "real_iad"
    image_folder = "image_folder"


class Protocol(Enum):  # not a StrEnum: its member `replace` would shadow str.replace
    """Noise protocols."""

    replace = "replace"
    add = "add"
    as_is = "as_is"


DEFAULTS = ScenarioSettings()
PLUGINS = typer.Option(
    "--plugins", help="Import a module:Class that the model file names; only for files that you trust."
)


def _option(default: object, help: str, min: int | None = None) -> Any:
    """Return an option that is None unless it is given, so that it does not override a file; help shows `default`."""
    return typer.Option(help=help, show_default=str(default), min=min)


@app.command()
def run(
    out: Annotated[Path, typer.Option(help="Folder for tables, model and pictures.")],
    source: Annotated[Source, typer.Option(help="Kind of data set.")] = Source.elpv,
    root: Annotated[Path | None, typer.Option(help="Folder of the data set (not needed for elpv).")] = None,
    category: Annotated[str, typer.Option(help="Product; for elpv: mono or poly.")] = "mono",
    variant: Annotated[str, typer.Option(help="real_iad: the JSON set.")] = "realiad_jsons",
    image_dir: Annotated[str, typer.Option(help="real_iad: the image folder.")] = "realiad_1024",
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
) -> None:
    """Purify a training set, train the final detector on it and compare with none / oracle / random."""
    from llbnad.data.contaminate import contaminate
    from llbnad.data.sources import read_source
    from llbnad.features.store import FeatureStore
    from llbnad.two_stage import run_two_stage, verdicts_of, write_run
    from llbnad.utils.files import write_csv
    from llbnad.utils.runtime import prepare

    dataset = _dataset(source, root, category, variant, image_dir)
    options = {
        "detector.name": detector,
        "selection.policy": policy if keep is None else "fraction",
        "selection.keep": keep,
        "subsets": int(subsets) if subsets is not None and subsets.isdecimal() else subsets,
        "aggregation": aggregation,
        "review": None if review is None else str(review),
        "calibration.target_fpr": target_fpr,
        "comparators": None if comparators is None else list(DEFAULTS.comparators) if comparators else [],
        "seed": seed,
        "suspects": suspects,
    }
    settings = make_settings(merged(config, options, assignments or []), "llbnad run")
    if root is not None and out.resolve().is_relative_to(root.resolve()):
        raise ConfigError(f"--out {out} lies in --root {root}: the next run would take its pictures for images")
    noise = _noise(protocol, noise_ratio, max_noise_ratio)

    runtime = Runtime(device=device, threads=threads)
    target = str(prepare(runtime))
    scan, image_root = read_source(dataset, root)
    write_csv(scan.rejected, out / "left_out.csv")
    noisy = contaminate(scan.manifest, noise, settings.seed)
    store = FeatureStore(cache or out / "features", settings.encoder, noisy, image_root, target, runtime.batch_size)
    result = run_two_stage(noisy, store, image_root, settings, verdicts_of(settings))
    write_run(result, store, image_root, settings.suspects, out)
    for line in _summary(result, scan):
        typer.echo(line)
    typer.echo(f"written to {out}: metrics.json, comparison.csv, suspects.csv, scores.parquet, kept.parquet, plots/")


def _dataset(source: Source, root: Path | None, category: str, variant: str, image_dir: str) -> Dataset:
    content = {"source": source.value, "category": category}
    if source is Source.real_iad:
        content |= {"variant": variant, "image_dir": image_dir}
    if source is not Source.elpv:
        if root is None:
            raise LlbnadError(f"--root is missing: the folder of the {source.value} data set")
        content["root"] = str(root)
    dataset: Dataset = parse(Dataset, content, "llbnad run")
    return dataset


def _noise(protocol: Protocol, ratio: float, max_ratio: float | None) -> Noise:
    if protocol is Protocol.as_is:
        return NoNoise()
    content = {"protocol": protocol.value, "ratio": ratio, "max_ratio": ratio if max_ratio is None else max_ratio}
    noise: Noise = parse(InjectedNoise, content, "llbnad run")
    return noise


def _summary(result: "TwoStageRun", scan: "Scan") -> Iterator[str]:
    """Yield the lines that a run prints: the comparison, and facts to know before one trusts it."""
    columns = ["method", "image_auroc", "pixel_auroc", "aupro", "n_selected", "contamination_after"]
    yield result.evaluation.comparison[columns].to_string(index=False, float_format="%.3f", na_rep="–")
    yield from result.evaluation.caveats()
    if result.evaluation.threshold is not None:
        yield result.evaluation.threshold.describe()
    yield from scan.notes
    if len(scan.rejected):
        reasons = ", ".join(f"{count} {reason}" for reason, count in scan.rejected["reason"].value_counts().items())
        yield f"{len(scan.rejected)} files were left out ({reasons}): left_out.csv says why"
    yield from (f"note: {note}" for note in result.notes)
    kept, trained = len(result.purified.kept), len(result.scores)
    if kept < trained / 2:
        yield f"WARNING: only {kept} of {trained} training images were kept: look at plots/purification"


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="Model file (.safetensors).")],
    images: Annotated[list[Path], typer.Argument(help="Image files or folders.")],
    out: Annotated[Path, typer.Option(help="Folder for predictions.csv and heatmaps/.")],
    fpr: Annotated[
        float | None,
        typer.Option(
            help="Rate of false positives to accept, in (0, 1); more find more defects. Default: the model's."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 = all cores.")] = 0,
    plugins: Annotated[bool, PLUGINS] = False,
) -> None:
    """Score images and call them normal, unsure or defect. Write a CSV, and one heat map per image."""
    from llbnad.inference.predict import find_images, threshold_of
    from llbnad.inference.predict import predict as predict_images
    from llbnad.model.model import Model
    from llbnad.model.threshold import DEFECT_LABEL, UNSURE_LABEL
    from llbnad.utils.runtime import prepare

    paths = find_images(images)
    target = str(prepare(Runtime(device=device, threads=threads)))
    loaded = Model.load(model, target, plugins)
    threshold = threshold_of(loaded, fpr)
    table = predict_images(loaded, paths, out, target, threshold=threshold)
    failed = int((table["error"] != "").sum())
    defects, unsure = (int((table["label"] == label).sum()) for label in (DEFECT_LABEL, UNSURE_LABEL))
    called = "" if threshold is None else f" ({defects} called defects, {unsure} unsure)"
    typer.echo(f"{len(table) - failed} images scored{called}, {failed} unreadable; written to {out}")
    typer.echo(threshold.describe() if threshold is not None else "the model has no threshold: scores only")
    if failed == len(table):
        raise LlbnadError("none of the images could be read; predictions.csv says why")


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="Model file (.safetensors).")],
    out: Annotated[Path, typer.Option(help="Folder for the graph and its JSON.")],
    format: Annotated[list[Format], typer.Option(help="onnx or openvino; may be given twice.")] = [Format.onnx],  # noqa: B006
    plugins: Annotated[bool, PLUGINS] = False,
) -> None:
    """Write encoder, detector and score as one graph (needs the extra `export`)."""
    from llbnad.inference.export import export as export_model
    from llbnad.model.model import Model

    targets = export_model(Model.load(model, plugins=plugins), format, out)
    typer.echo(f"written: {', '.join(str(path) for path in targets.values())}")


def main() -> None:
    """Run the command. Bad input ends it with a one-line message and exit code 2."""
    try:
        app()
    except LlbnadError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # --out is a file, a folder is not writable, or the disk is full
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
