"""How near the two stages come to what this machine can do: every step as a multiple of its limit.

    python -m benchmarks.limits [--out benchmarks/results/limits.csv]

`llbnad run` of patchcore on ELPV mono (737 images at 224 px, α = 0.2) with default settings: five sub-models of padim,
two rounds, 8,192 patches, calibration, comparators. It goes step by step in one process, without imports and pictures.
The limit of a step is the time that its floating-point operations take at the rate of a large matrix product, measured
in the same process, and for encoding also the time to decode and resize the files. Counted are convolutions and matrix
products, as torch counts them; a step that multiplies more than it must has a limit that is too high. All times are
processor seconds on one thread.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import pandas as pd
import torch
import typer
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measured.data import solar_cells
from llbnad.config import EncoderConfig, Runtime
from llbnad.data.images import load_square
from llbnad.data.manifest import training_images
from llbnad.detectors.patchcore.detector import PatchcoreConfig
from llbnad.encoders import create_encoder
from llbnad.evaluation.evaluate import evaluate
from llbnad.features.store import FeatureStore
from llbnad.scenario import ScenarioSettings
from llbnad.two_stage import select_images, train_final
from llbnad.utils.files import write_csv
from llbnad.utils.runtime import prepare

SIDE, ROUNDS = 2048, 9  # of the large product, and how often it is tried: the best counts
INNER = 168  # channels of a patch: the inner side of patchcore's products
Result = TypeVar("Result")


def rate(inner: int) -> float:
    """Return the operations per second of a float32 product (SIDE, inner) · (inner, SIDE)."""
    left, right = torch.rand(SIDE, inner), torch.rand(inner, SIDE)
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.process_time()
        for _ in range(max(1, SIDE // inner)):
            left @ right
        best = min(best, time.process_time() - started)
    return 2 * SIDE * SIDE * inner * max(1, SIDE // inner) / best


class Steps:
    """The steps that were measured. `per_second` is the machine's rate of operations."""

    def __init__(self, per_second: float) -> None:
        self.per_second = per_second
        self.rows: list[dict[str, Any]] = []

    def add(self, name: str, seconds: float, operations: float, other: float = 0) -> None:
        """Add a step; `other` is the part of its limit that is no product."""
        limit = operations / self.per_second + other
        self.rows.append({"step": name, "seconds": seconds, "limit_seconds": limit, "multiple": seconds / limit,
                          "tera_operations": operations / 1e12})  # fmt: skip

    def run(self, name: str, work: Callable[[], Result]) -> Result:
        """Time a step, and count its operations on a second pass that is not timed: counting is slow."""
        started = time.process_time()
        found = work()
        seconds = time.process_time() - started
        with FlopCounterMode(display=False) as counter:
            work()
        self.add(name, seconds, counter.get_total_flops())
        print(f"{name}: {seconds:.1f} s", flush=True)
        return found


def main(out: Annotated[Path | None, typer.Option(help="CSV file for the table.")] = None) -> None:
    """Print one row per step."""
    prepare(Runtime(device="cpu", threads=1))
    large, narrow = rate(SIDE), rate(INNER)
    print(f"products: {large / 1e9:.0f} GFLOP/s, with an inner side of {INNER}: {narrow / 1e9:.0f} GFLOP/s")
    manifest, root = solar_cells()
    config = EncoderConfig()
    steps = Steps(large)
    with tempfile.TemporaryDirectory() as folder:
        store = FeatureStore(Path(folder), config, manifest, root)
        _encoding(steps, store, manifest, root)
        scenario = ScenarioSettings(detector=PatchcoreConfig())
        images = training_images(manifest)
        selection = steps.run("stage 1", lambda: select_images(images, store, scenario))
        sets, models = steps.run("final detector, comparators, calibration",
                                 lambda: train_final(images, selection, store, scenario))  # fmt: skip
        steps.run("test", lambda: evaluate(models, sets, manifest, store, root, scenario.seed))
    table = pd.DataFrame(steps.rows)
    whole = table[["seconds", "limit_seconds", "tera_operations"]].sum()
    steps.add("all", whole["seconds"], 0, whole["limit_seconds"])
    table = pd.DataFrame(steps.rows).assign(giga_per_second=large / 1e9, giga_per_second_narrow=narrow / 1e9)
    table.loc[table["step"] == "all", "tera_operations"] = whole["tera_operations"]
    print(table.to_string(index=False, float_format="{:.2f}".format))
    if out is not None:
        write_csv(table, out)


def _encoding(steps: Steps, store: FeatureStore, manifest: pd.DataFrame, root: Path) -> None:
    """Add the way from files to features: decoding, one pass of the network, writing."""
    paths = [root / path for path in manifest["path"]]
    started = time.process_time()
    squares = [load_square(path, store.config.input_size) for path in paths]
    decoding = time.process_time() - started
    encoder: Any = create_encoder(store.config, "cpu")
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        encoder.layers(torch.from_numpy(squares[0][None].copy()))
    store.ensure(store.image_ids[:1])  # loads the network
    started = time.process_time()
    store.ensure(store.image_ids)
    steps.add("encoding", time.process_time() - started, counter.get_total_flops() * len(paths), decoding)
    print(f"encoding: {steps.rows[-1]['seconds']:.1f} s, of which decoding {decoding:.1f} s", flush=True)


if __name__ == "__main__":
    typer.run(main)
