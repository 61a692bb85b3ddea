"""Growth of every stage of the pipeline with the number of images: seconds, memory and bytes written.

    python -m benchmarks.scale [--images 1000 4000 16000 100000] [--until purified] [--tables 100000]

For each number of `--images` a repository with our code is made, with that many small photos outside of data/, so that
stage `raw` copies them. Its stages run one after the other, each in a process of its own as `dvc repro` starts it, with
MLflow's records. Beside it is what DVC itself does for the stage, as `dvc commit`: hash, link into the cache, write
dvc.lock.

`--tables` instead makes manifest, scores and maps (28 × 28) of so many images without their photos, and runs the stages
that read no image: noisy, scores, and purified with one round.

`growth` is the exponent k of CPU seconds = a + b · images^k that the three largest sizes give; 1 is linear. Memory is
the largest of the process or of one that it started.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from scipy.optimize import brentq

from orchestration.pipeline.process import environment

RESULTS = Path(__file__).parent / "results" / "scale.csv"
NAME = "parts"  # of data set and scenario
SUBSETS = 3  # sub-models, and stages of them
STAGES = ("code", "raw", "params", "settings", "noisy", "features", "sub_model", "scores", "purified", "detector",
          "evaluation")  # fmt: skip
ALONE = ("code", "params")  # stages that are no data set's and no scenario's
BETWEEN = (0.05, 4.0)  # exponents that are looked for
LEAST = 0.3  # CPU seconds; smaller differences are noise


@dataclass(frozen=True)
class Row:
    """Time, memory and bytes of one step at one number of images."""

    images: int
    step: str
    wall_seconds: float
    cpu_seconds: float  # of the process and those that it started
    peak_mb: float
    written_mb: float


def measured(command: Sequence[str], root: Path) -> tuple[float, float, float, float]:
    """Run a command in a repository; return seconds, CPU seconds, largest memory in MB, and MB written.

    Raises:
        SystemExit: the command failed.
    """
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, cwd=root, env=environment(), stdout=said, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        if status:
            said.seek(0)
            sys.exit(f"error: {' '.join(command)} failed in {root}:\n{said.read()[-3000:]}")
    return seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, used.ru_oublock * 512 / 1e6


def commands(stage: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield the names of a stage's steps, each with its command and with that of DVC's own work for it."""
    place = [] if stage in ALONE else [NAME]
    for number in map(str, range(SUBSETS)) if stage == "sub_model" else [""]:
        own = [number] if number else []
        name = "-".join(["@".join([stage, *place]), *own])
        command = ["python", "-m", f"orchestration.stages.{stage}", *place, *own]
        yield "-".join([stage, *own]), command, ["dvc", "commit", "--force", "--quiet", name]


def prepared(function: str, root: Path, *arguments: int, **settings: int) -> None:
    """Call a function of `many_images` in another process: a child's peak of memory is never below its parent's."""
    given = ", ".join(
        [f"Path({str(root)!r})", *map(str, arguments), *(f"{key}={one}" for key, one in settings.items())]
    )
    code = f"from pathlib import Path; from benchmarks.measured import many_images; many_images.{function}({given})"
    subprocess.run([sys.executable, "-c", code], check=True)


def whole(root: Path, count: int, until: str) -> Iterator[Row]:
    """Run the stages up to `until` on `count` photos and yield what each took."""
    prepared("make_workspace", root, count)
    for stage in STAGES[: STAGES.index(until) + 1]:
        for step, command, of_dvc in commands(stage):
            yield _row(count, step, command, root)
            yield _row(count, f"{step}, DVC", of_dvc, root)
    yield _row(count, "dvc repro, nothing changed", ["dvc", "repro", f"{until}@{NAME}"], root)
    if STAGES.index(until) >= STAGES.index("purified"):
        yield _row(count, "review", ["python", "-m", "orchestration", "review", NAME, "--out", "page.html"], root)


def tables(root: Path, count: int) -> Iterator[Row]:
    """Run the stages that read no image on tables of `count` images and yield what each took."""
    prepared("make_workspace", root, 100, rounds=1)
    for stage in ("code", "raw", "params", "settings", "noisy", "scores", "purified"):
        if stage == "noisy":
            prepared("add_rows", root, count)
        if stage == "scores":
            prepared("make_scores", root)
        for step, command, _ in commands(stage):
            row = _row(count, f"{step}, tables", command, root)
            if stage in ("noisy", "scores", "purified"):
                yield row


def growth(rows: Sequence[Row], step: str) -> float | None:
    """Return the exponent of a step's CPU seconds (see above); None if three sizes do not differ by more than noise."""
    times = sorted((row.images, row.cpu_seconds) for row in rows if row.step == step)[-3:]
    if len(times) < 3:
        return None
    (low, middle, high), (seconds_low, seconds_middle, seconds_high) = zip(*times, strict=True)
    first, second = seconds_middle - seconds_low, seconds_high - seconds_middle
    if min(first, second) <= LEAST:
        return None

    def misfit(exponent: float) -> float:
        return (high**exponent - middle**exponent) / (middle**exponent - low**exponent) - second / first

    return float(brentq(misfit, *BETWEEN)) if misfit(BETWEEN[0]) < 0 < misfit(BETWEEN[1]) else None


def table(rows: Sequence[Row]) -> str:
    """Return a table of CPU seconds and memory by step and number of images, with the growth."""
    counts = sorted({row.images for row in rows})
    lines = [f"{'step':28}" + "".join(f"{count:>10,} s {'MB':>7}" for count in counts) + "   growth"]
    for step in dict.fromkeys(row.step for row in rows):
        own = {row.images: row for row in rows if row.step == step}
        cells = [f"{own[n].cpu_seconds:12.1f} {own[n].peak_mb:7.0f}" if n in own else " " * 20 for n in counts]
        exponent = growth(rows, step)
        lines.append(f"{step:28}{''.join(cells)}{'' if exponent is None else f'{exponent:9.2f}'}")
    return "\n".join(lines)


def main() -> None:
    """Measure, print a table and write the CSV file after each step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="*", default=[1_000, 4_000, 16_000, 100_000])
    parser.add_argument("--until", choices=STAGES[4:], default="purified", help="the last stage")
    parser.add_argument("--tables", type=int, nargs="*", default=[], help="images of which there are tables alone")
    parser.add_argument("--folder", type=Path, help="keep the repositories in this folder")
    parser.add_argument("--out", type=Path, default=RESULTS, help="CSV file")
    options = parser.parse_args()
    rows: list[Row] = []
    runs: list[tuple[str, Callable[[Path], Iterator[Row]]]] = [
        *((str(count), lambda root, count=count: whole(root, count, options.until)) for count in options.images),
        *((f"tables_{count}", lambda root, count=count: tables(root, count)) for count in options.tables),
    ]
    for name, run in runs:
        with tempfile.TemporaryDirectory() as temporary:
            for row in run((options.folder or Path(temporary)) / name):
                rows.append(row)
                print(*astuple(row), sep="\t", flush=True)
                with options.out.open("w", newline="") as stream:
                    writer = csv.writer(stream, lineterminator="\n")
                    writer.writerow([field.name for field in fields(Row)])
                    writer.writerows(map(astuple, rows))
    print(table(rows))


def _row(count: int, step: str, command: Sequence[str], root: Path) -> Row:
    return Row(count, step, *(round(value, 2) for value in measured(command, root)))


if __name__ == "__main__":
    main()
