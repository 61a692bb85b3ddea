"""From a folder of photos of 16 megapixels to regions in CSV: the two commands of docs/views.md, measured.

    python -m benchmarks.large_photos --data FOLDER [--tiles 4x6] [--count 12] [--fpr 0.05] [--graphs]

A photo of 4928 × 3264 pixels is a tray of 5 × 3 castings, real ones enlarged from 300 pixels. `--count` trays of normal
castings are learnt. Fifteen others are scored: five of normal castings, five with a defective casting in a known place,
and five with a defect drawn there, one of each kind, an eighth as large as the casting is wide. Everything is in a
temporary folder. Printed are the largest memory and the processor seconds of each command, which trays it calls
defective, and whether regions are in the right place. Memory and processor seconds hardly depend on what else runs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.regions import DATA
from llbnad.sensitivity.defects import KINDS, draw

WIDTH, HEIGHT = 4928, 3264
COLUMNS, ROWS = 5, 3
CELL = (-(-WIDTH // COLUMNS), HEIGHT // ROWS)  # width and height in pixels
ODD = 7  # cell of the defective casting: second row, third column
SCORED = 5  # trays of each sort
SIZE, CONTRAST = CELL[0] // 8, 0.2  # of drawn defects


def write_trays(castings: Path, folder: Path, count: int) -> None:
    """Write `count` trays to learn into folder/learn, and those to score into folder/new."""
    normal, defective = (iter(sorted((castings / kind).rglob("*.jpg"))) for kind in ("OK", "NG"))
    drawn = [f"new/drawn_{kind}.jpg" for kind in KINDS]
    new = [f"new/{sort}_{number}.jpg" for sort in ("normal", "defective") for number in range(SCORED)]
    for name in [*(f"learn/{number:02d}.jpg" for number in range(count)), *new, *drawn]:
        tray = Image.new("RGB", (WIDTH, HEIGHT))
        for cell in range(COLUMNS * ROWS):
            source = defective if name.startswith("new/defective") and cell == ODD else normal
            with Image.open(next(source)) as casting:
                enlarged = casting.convert("RGB").resize(CELL, Image.Resampling.BICUBIC)
            if name in drawn and cell == ODD:
                kind = KINDS[drawn.index(name)]
                enlarged = Image.fromarray(draw(np.asarray(enlarged), name, kind, SIZE, CONTRAST).image)
            tray.paste(enlarged, (cell % COLUMNS * CELL[0], cell // COLUMNS * CELL[1]))
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        tray.save(folder / name, quality=92)


def measured(arguments: Sequence[object]) -> tuple[float, float, str]:
    """Run `llbnad` and return its largest memory in MB, its processor seconds, and what it printed."""
    command = [sys.executable, "-m", "llbnad.cli", *map(str, arguments)]
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        said.seek(0)
        printed = said.read()
    if status:
        sys.exit(f"error: {' '.join(command)} failed:\n{printed}")
    return used.ru_maxrss / 1024, used.ru_utime + used.ru_stime, printed


def found(scored: Path) -> Iterator[str]:
    """Yield one line per image: its verdict, and the cells of its regions."""
    lines = (scored / "regions.jsonl").read_text().splitlines()
    regions = pd.DataFrame([json.loads(line) for line in lines], columns=["path", "centre", "area"])
    for row in pd.read_csv(scored / "predictions.csv").sort_values("path").to_dict("records"):
        own = regions[regions["path"] == row["path"]]
        cells = sorted({int(y // CELL[1]) * COLUMNS + int(x // CELL[0]) for x, y in own["centre"]})
        yield (f"{Path(row['path']).name}: {row['label']}, score {row['score']:.3f}, threshold {row['threshold']:.3f}, "
               f"{len(own)} regions in cells {cells}")  # fmt: skip


def main() -> None:
    """Make the photos, run both commands and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets, in Real-IAD's layout")
    parser.add_argument("--tiles", help="rows and columns of tiles; without: the whole image is squeezed")
    parser.add_argument("--count", type=int, default=12, help="trays to learn")
    parser.add_argument("--fpr", help="rate of false positives to score at; of n photos, at least 1 / (n + 1)")
    parser.add_argument(
        "--graphs", action="store_true", help="also export the model, and score the photos by its graphs"
    )
    options = parser.parse_args()
    castings = options.data / "casting" / "realiad_1024" / "casting_impeller"
    if not castings.is_dir():
        sys.exit(f"error: no castings at {castings}: name the folder of the data sets with --data")
    tiles = ["--tiles", options.tiles] if options.tiles else []
    rate = ["--fpr", options.fpr] if options.fpr else []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_trays(castings, folder, options.count)
        photos = len(list((folder / "new").iterdir()))
        out, scored = folder / "out", folder / "scored"
        given = ["--source", "image_folder", "--root", folder / "learn", "--category", "tray", "--protocol", "as_is"]
        memory, seconds, printed = measured(["run", *given, *tiles, "--out", out])
        print(printed, end="")
        print(f"llbnad run: {options.count} photos, at most {memory:.0f} MB, {seconds:.0f} processor s")
        memory, seconds, printed = measured(
            ["predict", out / "model.safetensors", folder / "new", "--out", scored, *rate]
        )
        print(printed, end="")
        print(
            f"llbnad predict: {photos} photos, at most {memory:.0f} MB, {seconds:.0f} processor s; defect in cell {ODD}"
        )
        for line in found(scored):
            print(line)
        if options.graphs:
            memory, seconds, printed = measured(
                ["export", out / "model.safetensors", "--format", "onnx", "--format", "openvino", "--out", folder]
            )
            print(f"llbnad export: at most {memory:.0f} MB, {seconds:.0f} processor s")
            for graph in (folder / "patchcore.onnx", folder / "patchcore.xml"):
                scored = folder / graph.suffix
                memory, seconds, _ = measured(["predict", graph, folder / "new", "--out", scored, *rate])
                print(
                    f"llbnad predict {graph.name}: {photos} photos, at most {memory:.0f} MB, {seconds:.0f} processor s"
                )
                for line in found(scored):
                    print(line)


if __name__ == "__main__":
    main()
