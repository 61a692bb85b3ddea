"""Time and memory of llbnad beside the tools that a user would take instead, measured in one run.

    python -m benchmarks.performance [--only NAME] [--quick] [--whole]

Each measurement runs in a fresh process. Its entry is printed and written into benchmarks/results/performance.json at
once, so that an interruption loses nothing. A repeated measurement replaces the entry of the same name. `ratio` says
how many times better llbnad is. A tool that is not installed is left out with a note: anomalib is the extra `anomalib`,
`dvc` and Dagster come with `make setup`.
"""

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.measured.process import MeasurementError, measure

RESULTS = Path(__file__).parent / "results" / "performance.json"


@dataclass(frozen=True)
class Size:
    """The amount of work of each measurement."""

    images: int = 512  # encoded
    steps: int = 500  # of the greedy coreset
    scenarios: tuple[int, ...] = (4, 40, 120)
    growth: tuple[int, ...] = (250, 500, 1000, 2000, 4000)
    subsets: tuple[int, ...] = (2, 3, 6, 12)
    rows: tuple[int, int] = (2_000, 20_000)
    repeats: int = 40
    dinomaly_steps: int = 300  # the detector's default
    sliced: int = 120  # scenarios worked in slices
    changed: int = 40
    collected: int = 360


QUICK = Size(64, 20, (4,), (100, 200), (2, 4), (500, 2_000), 10, 5, 22, 4, 60)


@dataclass
class Bench:
    """The runner of the measurements. It stores their results and writes the table."""

    size: Size
    whole: bool
    out: Path
    cpu: str = ""  # instructions that torch's kernels use
    group: str = ""
    known: dict[str, dict[str, Any]] = field(default_factory=dict)

    def run(self, function: str, threads: int = 1, **arguments: Any) -> dict[str, Any]:
        """Return the result of a measurement, which is made once per run of this program."""
        key = f"{function} {threads} {arguments}"
        if key not in self.known:
            self.known[key] = measure(function, threads, **arguments)
        return self.known[key]

    def add(self, name: str, ours: float, peer: float | None, unit: str, **more: Any) -> None:
        """Print an entry and write it. A rate is better when it is high, any other unit when it is low."""
        ratio = None if peer is None else (ours / peer if "images/s" in unit else peer / ours)
        entry = {"name": name, "ours": _short(ours), "peer": _short(peer), "ratio": _short(ratio), "unit": unit,
                 "command": f"python -m benchmarks.performance --only {self.group}",
                 "cpu": self.cpu, **more}  # fmt: skip
        entries = json.loads(self.out.read_text()) if self.out.exists() else []
        entries = [other for other in entries if other["name"] != name] + [entry]
        self.out.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.out.with_suffix(".tmp")
        temporary.write_text(json.dumps(entries, indent=2, ensure_ascii=False) + "\n")
        temporary.replace(self.out)
        shown = "" if peer is None else f"  peer {_short(peer):>9}  {_short(ratio):>6}×"
        print(f"{name:72} {_short(ours):>9}{shown}  {unit}", flush=True)


def encoding(bench: Bench) -> None:
    """Measure the way from files to features."""
    for threads in (1, 2):
        ours = bench.run("encoding.ours", threads, images=bench.size.images)
        peer = bench.run("anomalib_peer.encoding", threads, images=bench.size.images) if _anomalib() else None
        bench.add(f"encoding, {threads} thread(s), peer anomalib", ours["rate"], peer["rate"] if peer else None,
                  "images/s", n=ours["n"], threads=threads, peak_rss_mb=ours["peak_rss_mb"],
                  peer_peak_rss_mb=peer and peer["peak_rss_mb"])  # fmt: skip


def two_stage(bench: Bench) -> None:
    """Measure `llbnad run` on ELPV mono, single-stage anomalib, and the loop that encodes again for every pass."""
    patchcore: dict[str, Any] = {"detector": "patchcore", "settings": {"memory_size": 4096}}  # as in params.yaml
    smaller: dict[str, Any] = {"detector": "patchcore", "settings": {"memory_size": 2048}}
    for name, wanted in (("two-stage patchcore", patchcore), ("two-stage patchcore of 2,048 patches", smaller)):
        _beside_anomalib(bench, name, wanted)
    if _anomalib():
        padim, peer = bench.run("two_stage.ours", detector="padim", settings={}), bench.run("anomalib_peer.padim")
        bench.add("two-stage padim, peer anomalib PaDiM", padim["seconds"], peer["seconds"], "s", threads=1, n=412,
                  peak_rss_mb=padim["peak_rss_mb"], image_auroc=padim["image_auroc"], note="peer: single stage",
                  peer_peak_rss_mb=peer["peak_rss_mb"], peer_image_auroc=peer["image_auroc"])  # fmt: skip
    ours, peer = bench.run("two_stage.ours", **patchcore), bench.run("two_stage.naive", **patchcore)
    bench.add("two-stage patchcore, peer the loop that encodes for every pass", ours["seconds"], peer["seconds"], "s",
              threads=1, n=412, peak_rss_mb=ours["peak_rss_mb"], image_auroc=ours["image_auroc"],
              peer_peak_rss_mb=peer["peak_rss_mb"], peer_image_auroc=peer["image_auroc"],
              note="peer: without imports and pictures")  # fmt: skip


def _beside_anomalib(bench: Bench, name: str, wanted: dict[str, Any]) -> None:
    """Compare with single-stage PatchCore of anomalib, with its default coreset and with a tenth of it."""
    ours = bench.run("two_stage.ours", **wanted)
    more = {"threads": 1, "n": 412, "peak_rss_mb": ours["peak_rss_mb"], "image_auroc": ours["image_auroc"]}
    bench.add(name, ours["seconds"], None, "s", **more)
    if not _anomalib():
        return
    peer = bench.run("anomalib_peer.patchcore", steps=bench.size.steps)
    for percent in (10, 1):
        note = (f"peer: single stage, {peer[f'coreset_{percent}']} greedy steps extrapolated from the first "
                f"{bench.size.steps}, prediction from 48 images")  # fmt: skip
        bench.add(f"{name}, peer anomalib PatchCore {percent} % coreset (extrapolated)", ours["seconds"],
                  peer[f"seconds_{percent}"], "s", **more, note=note,
                  peer_peak_rss_mb=peer["peak_rss_mb"])  # fmt: skip
    if bench.whole:
        peer = bench.run("anomalib_peer.patchcore_whole", percent=1)
        bench.add(f"{name}, peer anomalib PatchCore 1 % coreset (whole)", ours["seconds"], peer["seconds"], "s", **more,
                  command=f"python -m benchmarks.performance --only {bench.group} --whole",
                  note="peer: single stage, run to its end", peer_peak_rss_mb=peer["peak_rss_mb"],
                  peer_image_auroc=peer["image_auroc"])  # fmt: skip


def dinomaly(bench: Bench) -> None:
    """Measure `llbnad run` with dinomaly in bfloat16, and the loop that encodes for every step in float32."""
    settings = {"steps": bench.size.dinomaly_steps}
    ours = bench.run("two_stage.ours", detector="dinomaly", settings={**settings, "precision": "bfloat16"})
    peer = bench.run("two_stage.naive", detector="dinomaly", settings=settings)
    bench.add("two-stage dinomaly, peer the float32 loop that encodes for every pass", ours["seconds"], peer["seconds"],
              "s", threads=1, n=412, steps=bench.size.dinomaly_steps, peak_rss_mb=ours["peak_rss_mb"],
              image_auroc=ours["image_auroc"], peer_peak_rss_mb=peer["peak_rss_mb"],
              peer_image_auroc=peer["image_auroc"], note="peer: without imports and pictures")  # fmt: skip


def scoring(bench: Bench) -> None:
    """Measure the search of nearest neighbours."""
    amount = {"patches": 784 * bench.size.repeats, "memory": 4096}
    ours, peer = bench.run("scoring.ours", **amount), bench.run("scoring.scikit_learn", **amount)
    bench.add("nearest of 4,096 patches, peer scikit-learn NearestNeighbors", ours["seconds"], peer["seconds"], "s",
              threads=1, n=amount["patches"], peak_rss_mb=ours["peak_rss_mb"],
              peer_peak_rss_mb=peer["peak_rss_mb"])  # fmt: skip


def prediction(bench: Bench) -> None:
    """Measure prediction, one file at a time and in batches."""
    amount = {"memory": 3230, "repeats": bench.size.repeats}
    ours = bench.run("prediction.latency", **amount)
    peer = bench.run("anomalib_peer.latency", **amount) if _anomalib() else None
    bench.add("one file to score and map, peer anomalib PatchCore, equal memory", 1000 * ours["seconds"],
              1000 * peer["seconds"] if peer else None, "ms", threads=1, n=bench.size.repeats,
              peak_rss_mb=ours["peak_rss_mb"])  # fmt: skip
    for detector in ("patchcore", "padim"):
        found = bench.run("prediction.throughput", detector=detector, rounds=5)
        torch_rate = found["rates"]["torch"]
        bench.add(f"{detector} by torch, batches of 16", torch_rate, None, "images/s", threads=1)
        for name, rate in found["rates"].items():
            if name != "torch":
                bench.add(f"{detector} exported to {name}, batches of 16, peer torch", rate, torch_rate, "images/s",
                          threads=1, score_difference=found["differences"][name])  # fmt: skip
        for text in found["missing"]:
            print(f"left out: {text}")
        if "onnx" in found["rates"]:
            for view in ("squeeze", "tiles") if detector == "patchcore" else ("squeeze",):
                _precisions(bench, detector, view)


def _precisions(bench: Bench, detector: str, view: str) -> None:
    found = bench.run("prediction.precisions", detector=detector, view=view, images=5 * bench.size.repeats)["files"]
    for name, one in found.items():
        format, _, precision = name.partition(" ")
        bench.add(f"{detector}, {view}, exported to {format} in {precision}, one file to score, peer float32",
                  one["ms"], found[f"{format} float32"]["ms"], "ms", threads=1,
                  image_auroc=_short(one["image_auroc"]), mb=_short(one["mb"]))  # fmt: skip


def live(bench: Bench) -> None:
    """Measure live scoring, and one file at a time by each runtime, in processor time."""
    with tempfile.TemporaryDirectory() as folder:
        made = bench.run("live.prepare_model", folder=folder, detector="patchcore", images=bench.size.repeats)
        found = bench.run("live.watch", folder=folder)
        bench.add("watch, from an image's arrival to its row and picture, median", found["median"], None, "s",
                  threads=1, n=found["n"], largest=_short(found["largest"]), processor_ms=_short(found["ms"]),
                  peak_rss_mb=found["peak_rss_mb"])  # fmt: skip
        files = {"torch": "model.safetensors", "onnx": "patchcore.onnx", "openvino": "patchcore.xml"}
        ours: float | None = None
        for name, file in files.items():
            if file not in made["files"]:
                continue
            found = bench.run("live.score", folder=folder, file=file)
            bench.add(f"patchcore by {name}, one file to score, map and regions", found["ms"], ours, "processor ms",
                      threads=1, n=found["n"], peak_rss_mb=found["peak_rss_mb"])  # fmt: skip
            ours = ours or found["ms"]
        for text in made["missing"]:
            print(f"left out: {text}")


def pixel_metrics(bench: Bench) -> None:
    """Measure the exact pixel metrics."""
    ours = bench.run("pixel_metrics.ours", images=100)
    peer = bench.run("pixel_metrics.usual", images=100, thresholds=200)
    bench.add("pixel AUROC, AP, AUPRO of 100 maps, peer loop over 200 thresholds", ours["seconds"], peer["seconds"],
              "s", threads=1, n=100, peak_rss_mb=ours["peak_rss_mb"],
              note=f"AUPRO {ours['aupro']:.4f}, by thresholds {peer['aupro']:.4f}")  # fmt: skip


def no_op(bench: Bench) -> None:
    """Measure `dvc repro` and Dagster where nothing has changed."""
    if shutil.which("dvc") is None:
        print("left out: the no-op runs need dvc (`make setup`)")
        return
    demo = bench.run("many_scenarios.demo_repro")["seconds"]
    if demo is None:
        print("left out: the demo's no-op `dvc repro`, as its outputs are not there (`make run`)")
    else:
        bench.add("no-op dvc repro, demo", demo, None, "s")
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as least:
        bench.run("many_scenarios.prepare", folder=folder)
        for count in bench.size.scenarios:
            ours = bench.run("many_scenarios.no_op_repro", folder=folder, scenarios=count)
            bench.add(f"no-op dvc repro, {count} scenarios", ours["seconds"], None, "s", n=ours["stages"],
                      single_stage_seconds=round(ours["single_stage_seconds"], 2))  # fmt: skip
            bench.add(f"dvc repro of stage settings alone, which runs, {count} scenarios",
                      ours["single_stage_run_seconds"], None, "s")  # fmt: skip
            found = bench.run("many_scenarios.no_op_dagster", folder=folder, scenarios=count)
            bench.add(f"no-op Dagster run of one among {count} scenarios, peer its dvc repro", found["seconds"],
                      found["dvc_seconds"], "s")  # fmt: skip
        found = bench.run("many_scenarios.in_turns", folder=folder, least=least, stages=ours["stages"])
        bench.add(f"no-op dvc repro, {count} scenarios, in turns with DVC's own cost", found["seconds"], None, "s",
                  n=ours["stages"], dvc_seconds=round(found["dvc_seconds"], 2),
                  times_dvc=[round(one, 2) for one in found["times_dvc"]])  # fmt: skip


def slices(bench: Bench) -> None:
    """Measure `run` through slices: one changed scenario among many, several on two processes, the union of many."""
    if shutil.which("dvc") is None:
        print("left out: slices need dvc (`make setup`)")
        return
    size = bench.size
    with tempfile.TemporaryDirectory() as place:
        folder, alone = f"{place}/many", f"{place}/alone"
        found = bench.run("slices.make", 2, folder=folder, alone=alone, scenarios=size.sliced)
        bench.add(f"no-op run through slices, {size.sliced} scenarios", found["seconds"], None, "s",
                  note=f"the first one, which asks DVC: {found['first_seconds']:.1f} s")  # fmt: skip
        found = bench.run("slices.one_changed", 2, folder=folder, alone=alone)
        bench.add(f"one changed scenario among {size.sliced}", found["seconds"], None, "s",
                  alone_seconds=_short(found["alone_seconds"]),
                  times_alone=[_short(ratio) for ratio in found["ratios"]])  # fmt: skip
        found = bench.run("slices.many_changed", 2, folder=folder, changed=size.changed)
        bench.add(f"{size.changed} changed scenarios on two processes, peer one process", found["seconds_2"],
                  found["seconds_1"], "s")  # fmt: skip
        found = bench.run("slices.added", 2, folder=folder, scenarios=size.sliced)
        bench.add(f"one more scenario beside {size.sliced}", found["seconds"], None, "s", stages=found["stages"])
        found = bench.run("slices.collect", 2, alone=alone, folder=f"{place}/collect", slices=size.collected)
        bench.add(f"collecting {size.collected} slices", found["seconds"], None, "s", n=found["stages"])


def calibration(bench: Bench) -> None:
    """Measure the part of the detector stage that asks whether images next to each other are alike."""
    cases: list[tuple[str, dict[str, Any]]] = [("patchcore", {"memory_size": 4096}), ("padim", {})]
    for detector, settings in cases:
        found = bench.run("calibration.bursts", detector=detector, settings=settings)
        bench.add(f"detector stage: are neighbours alike? {detector}, processor time", found["seconds"], None, "s",
                  threads=1, n=found["kept"], stage_seconds=_short(found["stage_seconds"]),
                  share=_short(found["seconds"] / found["stage_seconds"]))  # fmt: skip


def growth(bench: Bench) -> None:
    """Measure how time and memory grow with N and T."""
    with tempfile.TemporaryDirectory() as folder:
        largest = max(bench.size.growth)
        found = bench.run("growth.encode", 2, folder=folder, images=largest)
        bench.add(f"encode {largest} images", largest / found["seconds"], None, "images/s", n=largest, threads=2,
                  peak_rss_mb=found["peak_rss_mb"])  # fmt: skip
        runs = [(images, 3) for images in bench.size.growth]
        runs += [(bench.size.growth[1], subsets) for subsets in bench.size.subsets if subsets != 3]
        for images, subsets in runs:
            found = bench.run("growth.two_stage", 2, folder=folder, images=images, subsets=subsets)
            bench.add(f"two-stage patchcore on cached features, N = {images}, T = {subsets}", found["seconds"], None,
                      "s", n=images, subsets=subsets, threads=2, peak_rss_mb=found["peak_rss_mb"])  # fmt: skip


def memory(bench: Bench) -> None:
    """Measure the memory that a stage adds to its process."""
    few, many = bench.size.rows
    cases: list[tuple[str, dict[str, Any], int]] = [
        ("patchcore", {"memory_size": 1024}, 0),
        ("patchcore", {"memory_size": 1024}, 1),
        ("padim", {"dimensions": 16}, 0),
    ]
    for detector, settings, limit in cases:
        small, large = (
            bench.run("growth.stage", detector=detector, images=count, settings=settings, memory_limit=limit)
            for count in (few, many)
        )
        bench.add(f"memory of training and scoring {many} synthetic images, {detector}, memory_limit {limit}",
                  large["mb"], None, "MB", n=many, threads=1, training_mb=_short(large["training_mb"]),
                  maps_mb=_short(large["maps_mb"]), peak_rss_mb=large["peak_rss_mb"],
                  note=f"{_short(small['mb'])} MB with {few} images")  # fmt: skip
    _stage_1_memory(bench)


def _stage_1_memory(bench: Bench) -> None:
    small, large = (bench.run("growth.stage_1", images=count) for count in bench.size.rows)
    bench.add(f"memory of stage 1, patchcore, T = 3, {bench.size.rows[1]} synthetic images", large["mb"], None, "MB",
              n=bench.size.rows[1], threads=1, kept_mb=_short(large["kept_mb"]), peak_rss_mb=large["peak_rss_mb"],
              note=f"{_short(small['mb'])} MB with {bench.size.rows[0]} images; kept: scores and maps, which grow with "
              "the images")  # fmt: skip


GROUPS: dict[str, Callable[[Bench], None]] = {
    "encoding": encoding,
    "two-stage": two_stage,
    "dinomaly": dinomaly,
    "scoring": scoring,
    "prediction": prediction,
    "live": live,
    "metrics": pixel_metrics,
    "no-op": no_op,
    "slices": slices,
    "calibration": calibration,
    "growth": growth,
    "memory": memory,
}


def main(
    only: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(GROUPS)}; may be given twice.")] = None,
    quick: Annotated[bool, typer.Option(help="Small sizes: does it run? The numbers say little.")] = False,
    whole: Annotated[bool, typer.Option(help="Run anomalib's 1 % coreset to its end as well: 25 minutes.")] = False,
    out: Annotated[Path, typer.Option(help="JSON file; entries of the same name are replaced.")] = RESULTS,
) -> None:
    """Measure, print a table and write it as JSON."""
    unknown = sorted(set(only or []) - set(GROUPS))
    if unknown:
        print(f"error: --only {unknown[0]}: there are {', '.join(GROUPS)}", file=sys.stderr)
        raise typer.Exit(2)
    bench = Bench(QUICK if quick else Size(), whole, out)
    bench.cpu = bench.run("process.cpu")["cpu"]
    if not _anomalib():
        print("left out: anomalib is not installed in this environment (pip install -e '.[anomalib]')")
    failed = False
    for name, group in GROUPS.items():
        if only and name not in only:
            continue
        bench.group = name
        started = time.monotonic()
        try:
            group(bench)
        except MeasurementError as error:
            failed = True
            print(f"{name} failed: {error}", file=sys.stderr)
        print(f"({name}: {time.monotonic() - started:.0f} s)", flush=True)
    if failed:
        raise typer.Exit(1)


def _anomalib() -> bool:
    from importlib.util import find_spec

    return find_spec("anomalib") is not None


def _short(value: float | None) -> float | None:
    """Return a number with four significant digits, as text."""
    return None if value is None else float(f"{value:.4g}")


if __name__ == "__main__":
    typer.run(main)
