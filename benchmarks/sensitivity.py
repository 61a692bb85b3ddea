"""Do synthetic defects predict real ones, and what do detectors that should pass or be refused lose of them?

    python -m benchmarks.sensitivity reality [--data FOLDER] [--seeds N]
    python -m benchmarks.sensitivity limits [--data FOLDER] [--seeds N]
    python -m benchmarks.sensitivity harmless [--data FOLDER]

`reality` trains two detectors on four training sets each (`none`, `llbnad`, `oracle`, `random`; a fifth of the training
images is defective), each with a threshold of its own, and compares what they find of real defects with what they find
of synthetic ones, over detectors of one draw of a data set. `limits` trains a champion, successors that should pass and
successors that should be refused, and writes what the check `sensitivity` of a challenger says of each. `harmless`
trains both detectors on normal images of each data set and counts false positives on others after harmless changes.

Each data set that is not below FOLDER in Real-IAD's layout is left out, and said so. A row is written as soon as it is
known. Tables: benchmarks/results/sensitivity_reality.csv, sensitivity_limits.csv and sensitivity_harmless.csv.
"""

import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from PIL import Image

from llbnad.config import Dataset, ElpvDataset, InjectedNoise, Promotion, RealIadDataset, Runtime
from llbnad.data.contaminate import contaminate
from llbnad.data.images import load_rgb
from llbnad.data.manifest import NORMAL
from llbnad.data.sources import read_source
from llbnad.data.sources.records import Listing, Record
from llbnad.data.sources.scan_files import scan
from llbnad.evaluation.metrics import ranking
from llbnad.features.batch import Batch
from llbnad.features.source import FeatureSource
from llbnad.features.store import FeatureStore
from llbnad.inference.predict import Predictor
from llbnad.model.calibrate import calibrate
from llbnad.model.model import Model, train
from llbnad.model.threshold import threshold_at
from llbnad.monitoring.sensitivity_check import FOUND, Compared, beyond_chance, compare, net_loss
from llbnad.purification.comparators import training_sets
from llbnad.purification.patches import TrustedFeatures
from llbnad.scenario import ScenarioSettings, make_settings
from llbnad.sensitivity.defects import draw
from llbnad.sensitivity.measure import drawings, score_drawings, usual_sizes
from llbnad.sensitivity.rates import CLEAN, detection_rates
from llbnad.sensitivity.robustness import robustness
from llbnad.two_stage import select_images
from llbnad.utils.hashing import stable_shuffle
from llbnad.utils.runtime import prepare

RESULTS = Path(__file__).parent / "results"
DETECTORS: dict[str, dict[str, Any]] = {
    "padim": {"name": "padim", "dimensions": 60},
    "patchcore": {"name": "patchcore", "memory_size": 1024},
}
SETS: dict[str, Any] = {"elpv_mono": None, "magnetic_tile": "magnetic_tile", "casting": "casting_impeller"}
TRAINED, TESTED, DRAWN_ON, CHANGED = 160, 100, 12, 48  # images
CONTRAST = 0.2

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)
DATA = Annotated[Path, typer.Option(help="Folder of the data sets in Real-IAD's layout.")]
SEEDS = Annotated[int, typer.Option(min=1, help="Draws of images per data set.")]


class Remembered(Predictor):
    """A predictor that encodes each image once, however many detectors ask for it."""

    def __init__(self, model: Model, known: dict[bytes, Any]) -> None:
        super().__init__(model)
        self.encoder = _Remembering(self.encoder, known)


class _Remembering:
    def __init__(self, encoder: Any, known: dict[bytes, Any]) -> None:
        self.inner, self.known = encoder, known

    def encode(self, images: np.ndarray) -> Any:
        keys = [hashlib.sha256(image.tobytes()).digest() for image in images]
        new = [place for place, key in enumerate(keys) if key not in self.known]
        if new:
            maps, prefixes = self.inner.encode(images[new])
            for number, place in enumerate(new):
                self.known[keys[place]] = [layer[number] for layer in maps], [layer[number] for layer in prefixes]
        return tuple(
            tuple(np.stack(layer) for layer in zip(*(self.known[key][kind] for key in keys), strict=True))
            for kind in (0, 1)
        )


class Joined:
    """The features of images of several stores."""

    def __init__(self, *stores: FeatureStore) -> None:
        self.home = {image_id: store for store in stores for image_id in store.image_ids}

    def batches(self, image_ids: Sequence[str], description: str) -> Iterator[Batch]:
        """Yield the batches of each run of images of one store."""
        for store, ids in groupby(image_ids, self.home.__getitem__):
            yield from store.batches(list(ids), description)


def sets(data: Path) -> Iterator[tuple[str, pd.DataFrame, Path]]:
    """Yield name, manifest and root of each data set that is there."""
    for name, category in SETS.items():
        root = data / name
        if category and not root.is_dir():
            print(f"{name} is left out: {root} is not there", flush=True)
            continue
        found: Dataset = RealIadDataset(root=str(root), category=category) if category else ElpvDataset()
        scanned, images = read_source(found, root if category else None)
        yield name, scanned.manifest, images


def few(rows: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """Return `count` rows, chosen by the hashes of their samples."""
    place = {sample: number for number, sample in enumerate(stable_shuffle(rows["sample_id"], seed, "benchmark"))}
    ordered = rows.assign(place=rows["sample_id"].map(place)).sort_values(["place", "image_id"])
    return ordered.drop(columns="place").head(count)


def calibrated(rows: pd.DataFrame, features: FeatureSource, settings: ScenarioSettings, seed: int) -> Model:
    """Return a detector that is trained on `rows`, with its threshold."""
    encoder, detector = settings.encoder, settings.detector
    threshold, _ = calibrate(rows, features, encoder, detector, settings.calibration, seed)
    return replace(train(encoder, detector, features, rows["image_id"].tolist(), seed), threshold=threshold)


def add(row: Mapping[str, Any], rows: list[dict[str, Any]], path: Path) -> None:
    """Print a row and write the table with it."""
    rows.append(dict(row))
    print("  ".join(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()), flush=True)
    path.parent.mkdir(exist_ok=True)
    pd.DataFrame(rows).to_csv(path, index=False, float_format="%.4f")


@app.command()
def reality(data: DATA = Path("data/own"), seeds: SEEDS = 2) -> None:
    """Compare what detectors find of real and of synthetic defects."""
    prepare(Runtime())
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as cache:
        found = list(sets(data))
        for seed in range(seeds):
            for name, manifest, root in found:
                for row in _draw(manifest, root, seed, Path(cache) / name):
                    add({"set": name, "seed": seed, **row}, rows, RESULTS / "sensitivity_reality.csv")
    written = pd.read_csv(RESULTS / "sensitivity_reality.csv")  # as rounded, so that a reader finds the same
    print(agreement(written).to_string(index=False, float_format="%.2f"))


def _draw(manifest: pd.DataFrame, root: Path, seed: int, cache: Path) -> Iterator[dict[str, Any]]:
    noisy = contaminate(manifest, InjectedNoise(ratio=0.2, max_ratio=0.2), seed)
    anomalous = noisy["anomaly_class"] != NORMAL
    train_rows, tested = noisy["split"] == "train", noisy["split"] == "test"
    defects = round(TRAINED * 0.2)
    learnt = pd.concat([few(noisy[train_rows & ~anomalous], TRAINED - defects, seed),
                        few(noisy[train_rows & anomalous], defects, seed)])  # fmt: skip
    new = {kind: few(noisy[tested & (anomalous == kind)], TESTED, seed) for kind in (False, True)}
    chosen = new[False].head(DRAWN_ON)
    images = {image_id: root / path for image_id, path in zip(chosen["image_id"], chosen["path"], strict=True)}
    sizes = usual_sizes(chosen[["width", "height"]].min(axis=1).tolist())
    known: dict[bytes, Any] = {}
    for detector, config in DETECTORS.items():
        settings = make_settings({"detector": config, "seed": seed}, "benchmark")
        store = FeatureStore(cache, settings.encoder, pd.concat([learnt, *new.values()]), root)
        selection = select_images(learnt, store, settings)
        kept = selection.purified.kept
        for method, ids in training_sets(learnt, kept, ("none", "oracle", "random"), seed).items():
            own = TrustedFeatures(store, selection.trusted) if method == "llbnad" else store
            model = calibrated(learnt[learnt["image_id"].isin(ids)], own, settings, seed)
            scores = {kind: model.score(store, few_rows["image_id"].tolist()).values for kind, few_rows in new.items()}
            drawn = score_drawings(Remembered(model, known), images, drawings(sizes, (CONTRAST,)), seed)
            assert model.threshold is not None
            found = detection_rates(drawn, model.threshold.value)["rate"].mean()
            clean = drawn["kind"] == CLEAN
            alike = ranking(*(drawn["score"][chosen_rows].to_numpy() for chosen_rows in (clean, ~clean)))
            real = ranking(scores[False], scores[True])
            assert alike is not None and real is not None
            yield {
                "detector": detector,
                "trained_on": method,
                "recall": float((scores[True] > model.threshold.value).mean()),
                "fpr": float((scores[False] > model.threshold.value).mean()),
                "auroc": real.auroc,
                "sensitivity": float(found),
                "synthetic_auroc": alike.auroc,
            }


def agreement(table: pd.DataFrame) -> pd.DataFrame:
    """Return per set how the rank of models by synthetic defects agrees with that by real ones.

    Spearman's correlation over the models of one draw, mean over draws; `pairs` is the share of pairs of models of one
    draw that both put in the same order. First at each model's own threshold, then of AUROC.
    """
    from scipy.stats import spearmanr

    rows = []
    for name, of_set in table.groupby("set", sort=False):
        row: dict[str, Any] = {"set": name, "models": len(of_set)}
        for label, ours, real in (("own threshold", "sensitivity", "recall"), ("AUROC", "synthetic_auroc", "auroc")):
            ranks, agree = [], []
            for _, one in of_set.groupby("seed"):
                ranks.append(spearmanr(one[ours], one[real]).statistic)
                both = [
                    np.sign(np.subtract.outer(one[column].to_numpy(), one[column].to_numpy()))
                    for column in (ours, real)
                ]
                agree += (both[0] == both[1])[np.triu_indices(len(one), 1)].tolist()
            row |= {f"{label}: rank correlation": np.mean(ranks), f"{label}: pairs": np.mean(agree)}
        rows.append(row)
    return pd.DataFrame(rows)


@app.command()
def limits(data: DATA = Path("data/own"), seeds: SEEDS = 2) -> None:
    """Say what successors of a champion lose, and which the check refuses."""
    prepare(Runtime())
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as cache:
        for name, manifest, root in sets(data):
            for seed in range(seeds):
                for detector, config in DETECTORS.items():
                    settings = make_settings({"detector": config}, "benchmark")
                    for row in _successors(manifest, root, settings, seed, Path(cache) / name):
                        add({"set": name, "seed": seed, "detector": detector, **row}, rows,
                            RESULTS / "sensitivity_limits.csv")  # fmt: skip
    table = pd.DataFrame(rows)
    said = table.groupby("successor", sort=False).agg(
        models=("refused", "size"), refused=("refused", "sum"), median=("largest_loss", "median"),
        largest=("largest_loss", "max"))  # fmt: skip
    print(said.to_string(float_format="%.2f"))


@app.command()
def harmless(data: DATA = Path("data/own")) -> None:
    """Count the normal images that are called defects after changes that harm nothing, by data set and detector."""
    target = str(prepare(Runtime()))
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as cache:
        for name, manifest, root in sets(data):
            normal = few(manifest[manifest["anomaly_class"] == NORMAL], TRAINED + CHANGED, 0)
            learnt, others = normal.iloc[:TRAINED], normal.iloc[TRAINED:]
            images = {image_id: root / path for image_id, path in zip(others["image_id"], others["path"], strict=True)}
            known: dict[bytes, Any] = {}
            for detector, config in DETECTORS.items():
                settings = make_settings({"detector": config}, "benchmark")
                store = FeatureStore(Path(cache) / name, settings.encoder, normal, root, target)
                model = calibrated(learnt, store, settings, 0)
                assert model.threshold is not None
                found = robustness(Remembered(model, known), images, model.threshold)
                for row in found.assign(set=name, detector=detector).to_dict("records"):
                    add({str(key): value for key, value in row.items()}, rows, RESULTS / "sensitivity_harmless.csv")
    table = pd.DataFrame(rows).set_index(["change", "strength", "set", "detector"])["false_positives"]
    print(table.unstack(["set", "detector"]).to_string(float_format="%.2f"))


def _successors(
    manifest: pd.DataFrame, root: Path, settings: ScenarioSettings, seed: int, cache: Path
) -> Iterator[dict[str, Any]]:
    normal = few(manifest[manifest["anomaly_class"] == NORMAL], 200, seed)
    defects = few(manifest[manifest["anomaly_class"] != NORMAL], 50, seed)
    first, more, others = normal.iloc[:100], normal.iloc[:140], normal.iloc[50:150]
    store = FeatureStore(cache, settings.encoder, pd.concat([normal, defects]), root)
    champion = calibrated(first, store, settings, seed)
    assert champion.threshold is not None
    known: dict[bytes, Any] = {}
    marked = drawn_images(first, root, seed, cache.parent / f"{cache.name}_drawn_{seed}")
    both = Joined(store, FeatureStore(cache, settings.encoder, *marked))
    raised = threshold_at(np.append(champion.threshold.scores, [2 * champion.threshold.value] * 3), 0.01, "none")
    successors = {
        "another seed": calibrated(first, store, settings, seed + 100),
        "40 images more": calibrated(more, store, settings, seed),
        "half of the images others": calibrated(others, store, settings, seed),
        "a third real defects": calibrated(pd.concat([first, defects]), store, settings, seed),
        "learnt drawn scratches and blots": calibrated(pd.concat([first, marked[0]]), both, settings, seed),
        "threshold set by kept defects": replace(champion, threshold=raised),
    }
    for name, model in successors.items():
        pool = first[first["image_id"].isin(others["image_id"])] if name.startswith("half") else first
        compared = compare(
            Remembered(model, known), Remembered(champion, known), pool, root, Promotion().sensitivity_images
        )
        assert isinstance(compared, Compared), compared
        kinds = {str(kind): part for kind, part in compared.table.groupby("kind", sort=False)}
        losses = {kind: net_loss(part) for kind, part in kinds.items()}
        most = Promotion().max_sensitivity_loss
        yield {
            "successor": name,
            "champion_finds": float((compared.table["before"] == FOUND).mean()),
            "finds": float((compared.table["now"] == FOUND).mean()),
            "largest_loss": max(losses.values()),
            "of": max(losses, key=lambda kind: losses[kind]),
            "refused": any(beyond_chance(part, most) for part in kinds.values()),
        }


def drawn_images(rows: pd.DataFrame, root: Path, seed: int, folder: Path) -> tuple[pd.DataFrame, Path]:
    """Write half of the images with a scratch or a blot to `folder`; return their manifest and `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for number, (image_id, path) in enumerate(zip(rows["image_id"][::2], rows["path"][::2], strict=True)):
        pixels = np.asarray(load_rgb(root / path))
        sizes = usual_sizes([min(pixels.shape[:2])])
        kind, size = ("scratch", "blot")[number % 2], sizes[1 + number // 2 % 4]
        name = f"{number:03d}.png"
        Image.fromarray(draw(pixels, image_id, kind, size, CONTRAST, seed + 1).image).save(folder / name)
        records.append(Record(name, "drawn", name, anomaly_class=NORMAL))
    return scan(Listing(folder, records)).manifest.assign(split="train"), folder


if __name__ == "__main__":
    app()
