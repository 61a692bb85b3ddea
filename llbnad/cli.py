"""The `llbnad` command: both stages on one folder, and prediction with the result. Knows no DVC, Dagster or MLflow."""

import sys
from enum import Enum, StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from llbnad.config import Dataset, InjectedNoise, NoNoise, Runtime, parse
from llbnad.detectors import DETECTORS
from llbnad.errors import ConfigError, LlbnadError
from llbnad.inference.export import Format
from llbnad.policies import POLICIES
from llbnad.scenario import ScenarioSettings, check_subsets

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)


class Source(StrEnum):
    """Where images come from."""

    elpv = "elpv"
    real_iad = "real_iad"
    image_folder = "image_folder"


class Protocol(Enum):  # not a StrEnum: its member `replace` would shadow str.replace
    """Noise protocols."""

    replace = "replace"
    add = "add"
    as_is = "as_is"


DEFAULTS = ScenarioSettings()
PLUGINS = typer.Option("--plugins", help="Import module:Class that the model file names: only for files you trust.")


@app.command()
def run(
    out: Annotated[Path, typer.Option(help="Folder for tables, model and pictures.")],
    source: Annotated[Source, typer.Option(help="Kind of data set.")] = Source.elpv,
    root: Annotated[Path | None, typer.Option(help="Its folder (not needed for elpv).")] = None,
    category: Annotated[str, typer.Option(help="Product; for elpv: mono or poly.")] = "mono",
    variant: Annotated[str, typer.Option(help="real_iad: the JSON set.")] = "realiad_jsons",
    image_dir: Annotated[str, typer.Option(help="real_iad: the image folder.")] = "realiad_1024",
    noise_ratio: Annotated[float, typer.Option(help="α, share of anomalous training samples, in [0, 1).")] = 0.0,
    max_noise_ratio: Annotated[float, typer.Option(help="Largest α of the comparison; fixes the test set.")] = 0.4,
    protocol: Annotated[
        Protocol, typer.Option(help="replace and add inject labelled anomalies; as_is takes the data as it is.")
    ] = Protocol.replace,
    detector: Annotated[str, typer.Option(help=f"The detector of both stages: {', '.join(DETECTORS.names)}.")] = (
        DEFAULTS.detector.name
    ),
    subsets: Annotated[int, typer.Option(min=1, help="T, number of sub-models.")] = 3,
    aggregation: Annotated[
        str, typer.Option(help="oof_mean, mean, robust_mean, max, rank_mean or max_var.")
    ] = DEFAULTS.aggregation,
    policy: Annotated[str, typer.Option(help=f"Selection policy: {', '.join(POLICIES.names)}.")] = (
        DEFAULTS.selection.policy
    ),
    keep: Annotated[float | None, typer.Option(help="Short for policy fraction with this share.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any other, e.g. detector.memory_size=4096; repeatable."),
    ] = None,
    review: Annotated[Path | None, typer.Option(help="CSV of people's verdicts, which override the policy.")] = None,
    target_fpr: Annotated[
        float, typer.Option(help="False positives the decision threshold may make, in (0, 1).")
    ] = DEFAULTS.calibration.target_fpr,
    comparators: Annotated[bool, typer.Option(help="Train none / oracle / random as well.")] = True,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    suspects: Annotated[int, typer.Option(min=0, help="Images on a contact sheet.")] = DEFAULTS.suspects,
    cache: Annotated[Path | None, typer.Option(help="Feature cache (default: OUT/features).")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 = all cores.")] = 0,
) -> None:
    """Purify a training set, train the final detector on it and compare with none / oracle / random."""
    from llbnad.config import METHOD
    from llbnad.data.contaminate import contaminate
    from llbnad.data.sources import read_source
    from llbnad.encoders import recipe
    from llbnad.features.store import FeatureStore
    from llbnad.purification.verdicts import read_verdicts
    from llbnad.two_stage import run_two_stage, write_run
    from llbnad.utils.files import write_csv
    from llbnad.utils.runtime import prepare

    content = {"source": source.value, "category": category}
    if source is Source.real_iad:
        content |= {"variant": variant, "image_dir": image_dir}
    if source is not Source.elpv:
        if root is None:
            raise LlbnadError(f"--root is missing: the folder of the {source.value} data set")
        content["root"] = str(root)
    dataset = parse(Dataset, content, "llbnad run")
    wanted: dict[str, Any] = {
        "seed": seed,
        "detector": {"name": detector},
        "aggregation": aggregation,
        "selection": {"policy": policy} if keep is None else {"policy": "fraction", "keep": keep},
        "calibration": {"target_fpr": target_fpr},
        "comparators": list(DEFAULTS.comparators) if comparators else [],
        "suspects": suspects,
    }
    config: ScenarioSettings = parse(ScenarioSettings, _with_settings(wanted, settings or []), "llbnad run")
    seed, suspects = config.seed, config.suspects  # --set has the last word
    try:
        check_subsets(subsets, config)
    except ValueError as error:
        raise ConfigError(f"llbnad run: {error}") from None
    recipe(config.encoder)  # raises before anything is read
    if root is not None and out.resolve().is_relative_to(root.resolve()):
        raise ConfigError(f"--out {out} lies in --root {root}: the next run would take its pictures for images")
    noise: InjectedNoise | NoNoise = NoNoise()
    if protocol is not Protocol.as_is:
        injected = {"protocol": protocol.value, "ratio": noise_ratio, "max_ratio": max_noise_ratio}
        noise = parse(InjectedNoise, injected, "llbnad run")

    runtime = Runtime(device=device, threads=threads)
    target = str(prepare(runtime))
    scan, image_root = read_source(dataset, root)
    write_csv(scan.rejected, out / "left_out.csv")
    noisy = contaminate(scan.manifest, noise, seed)
    store = FeatureStore(cache or out / "features", config.encoder, noisy, image_root, target, runtime.batch_size)
    if review is None and config.review != DEFAULTS.review:  # by --set
        review = Path(config.review)
    verdicts = {} if review is None else read_verdicts(review)
    result = run_two_stage(noisy, store, image_root, subsets, config, verdicts)
    write_run(result, store, image_root, suspects, out)
    columns = ["method", "image_auroc", "pixel_auroc", "aupro", "n_selected", "contamination_after"]
    typer.echo(result.evaluation.comparison[columns].to_string(index=False, float_format="%.3f", na_rep="–"))
    if not (noisy["split"] == "test").any():
        typer.echo("no image is set aside for testing: these are the training images themselves, so numbers flatter")
    threshold = result.models[METHOD].threshold
    if threshold is not None:
        typer.echo(threshold.describe())
    if len(scan.rejected):
        reasons = ", ".join(f"{count} {reason}" for reason, count in scan.rejected["reason"].value_counts().items())
        typer.echo(f"{len(scan.rejected)} files were left out ({reasons}): left_out.csv says why")
    kept, trained = len(result.purified.kept), len(result.scores)
    if kept < trained / 2:
        typer.echo(f"WARNING: only {kept} of {trained} training images were kept: look at plots/purification")
    typer.echo(f"written to {out}: metrics.json, comparison.csv, scores.parquet, kept.parquet, plots/")


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="Model file (.safetensors).")],
    images: Annotated[list[Path], typer.Argument(help="Image files or folders.")],
    out: Annotated[Path, typer.Option(help="Folder for predictions.csv and heatmaps/.")],
    fpr: Annotated[
        float | None,
        typer.Option(help="Sensitivity: false positives accepted, in (0, 1); more find more. Default: the model's."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 = all cores.")] = 0,
    plugins: Annotated[bool, PLUGINS] = False,
) -> None:
    """Score images and call them normal or defect: a CSV and a heat-map overlay each."""
    from llbnad.inference.predict import find_images, threshold_of
    from llbnad.inference.predict import predict as predict_images
    from llbnad.model.model import Model
    from llbnad.model.threshold import DEFECT_LABEL
    from llbnad.utils.runtime import prepare

    paths = find_images(images)
    target = str(prepare(Runtime(device=device, threads=threads)))
    loaded = Model.load(model, target, plugins)
    threshold = threshold_of(loaded, fpr)
    table = predict_images(loaded, paths, out, target, threshold=threshold)
    failed = int((table["error"] != "").sum())
    defects = f" ({int((table['label'] == DEFECT_LABEL).sum())} called defects)" if threshold is not None else ""
    typer.echo(f"{len(table) - failed} images scored{defects}, {failed} unreadable; written to {out}")
    typer.echo(threshold.describe() if threshold is not None else "the model has no threshold: scores only")
    if failed == len(table):
        raise LlbnadError("none of the images could be read; predictions.csv says why")


def _with_settings(content: dict[str, Any], settings: list[str]) -> dict[str, Any]:
    """`content` with every `a.b=value` of `settings` put in; values are read as YAML."""
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting!r}: expected KEY=VALUE, e.g. detector.memory_size=4096")
        *parents, last = key.split(".")
        node = content
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ConfigError(f"--set {setting!r}: {parent} holds a value, not settings")
        try:
            node[last] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError(f"--set {setting!r}: {value!r} is not a YAML value") from None
    return content


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
    """Entry point: bad input is one clear line and exit code 2."""
    try:
        app()
    except LlbnadError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # --out is a file, a folder may not be written, the disk is full
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
