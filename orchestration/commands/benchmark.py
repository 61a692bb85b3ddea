"""A benchmark table on a declared grid, of purification (`llbnad.study.table`) or a young line (`…young_line`).

    python -m orchestration benchmark benchmarks/purification.yaml
    python -m orchestration benchmark benchmarks/young_line.yaml

Cells are independent and run in parallel processes. A finished cell is kept in data/benchmark/, so a stopped run goes
on where it stopped. Changed code or a changed grid starts from the beginning, so that no table mixes two versions. The
table goes to benchmarks/results/<grid>.csv, with summaries and pictures beside it, and to MLflow.
"""

import hashlib
import json
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from threading import Thread
from typing import Annotated

import pandas as pd
import typer

from llbnad.config import Dataset, Runtime, parse
from llbnad.data.manifest import read_manifest, write_manifest
from llbnad.data.sources import read_source
from llbnad.errors import ConfigError, DataError
from llbnad.features.store import FeatureStore
from llbnad.scenario import plugin_modules
from llbnad.study.grid import Cell, Grid
from llbnad.study.left_out import left_out
from llbnad.study.table import run_cell
from llbnad.study.table_summary import contamination_figure, gap_closed, gap_over_sets, summary, table_figure
from llbnad.study.young_line import YoungCell, YoungLine, run_young_cell
from llbnad.study.young_line_summary import (
    NONE,
    over_sets,
    per_set,
    ranking_figure,
    ranking_over_sets,
    young_line_figure,
)
from llbnad.utils.files import write_csv, write_parquet
from llbnad.utils.pixel_limit import limit_pixels_of
from llbnad.utils.plugins import code_version
from llbnad.utils.progress import track
from llbnad.utils.runtime import prepare
from llbnad.utils.yaml_files import read_yaml
from orchestration.pipeline import code
from orchestration.pipeline.paths import DATA, FEATURE_CACHE

BENCHMARK_FOLDER = DATA / "benchmark"
RESULTS = Path("benchmarks") / "results"

AnyGrid = Grid | YoungLine
AnyCell = Cell | YoungCell


def load_grid(path: Path) -> AnyGrid:
    """Read a grid. One that names `sizes` is of a young line.

    Raises:
        ConfigError: a key or a value is wrong.
    """
    if not path.is_file():
        raise ConfigError(f"no grid at {path}: benchmarks/*.yaml are grids")
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no mapping: benchmarks/*.yaml are grids")
    grid: AnyGrid = parse(YoungLine if "sizes" in content else Grid, content, path.name)
    return grid


def scan(grid: AnyGrid, home: Path, cache: Path) -> dict[str, Path]:
    """Write the manifests of the data sets that exist to `home`, encode their images, and return their image roots."""
    found = {}
    for name in grid.datasets:
        variants = {ratio: grid.source(name, ratio) for ratio in grid.ratios}
        try:
            for dataset in dict.fromkeys(variants.values()):
                listing, root = read_source(dataset, Path(dataset.root))
                store = FeatureStore(cache, grid.encoder, listing.manifest, root)
                encoded = store.ensure(store.image_ids)
                print(f"{name}: {len(listing.manifest)} images, {encoded} encoded now", flush=True)
                for ratio in grid.ratios:
                    if variants[ratio] == dataset:
                        write_manifest(listing.manifest, _manifest(home, name, ratio))
        except DataError as error:
            print(f"data set {name} is left out: {error}", file=sys.stderr)
            continue
        found[name] = root
    if not found:
        raise DataError("none of the grid's data sets is there")
    return found


def run_grid(grid: AnyGrid, home: Path, cache: Path, processes: int) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Run the cells that are missing. Return the rows of all cells, and their test scores, which a young line lacks."""
    home.mkdir(parents=True, exist_ok=True)
    roots = scan(grid, home, cache)
    cells = [cell for cell in grid.cells() if cell.dataset in roots]
    missing = [cell for cell in cells if not _result(home, cell).exists()]
    print(f"{len(cells)} cells, {len(cells) - len(missing)} of them done before", flush=True)
    os.environ["TQDM_DISABLE"] = "1"  # in the processes started below, because one progress bar covers all cells
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_prepare) as pool:
        running = [pool.submit(_run, cell, grid, home, roots[cell.dataset], cache) for cell in missing]
        try:
            for done in track(as_completed(running), "cells", len(running), unit="cell"):
                done.result()
        except BaseException:  # also Ctrl-C: cells that have not begun do not begin
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    keys = ["dataset", "detector", "n", "alpha", "policy", "seed"]
    rows = pd.concat([pd.read_parquet(_result(home, cell)) for cell in cells])
    kept = [_scores(home, cell) for cell in cells]
    scores = None if isinstance(grid, YoungLine) else pd.concat(map(pd.read_parquet, kept), ignore_index=True)
    return rows.sort_values([key for key in keys if key in rows], ignore_index=True), scores


def _prepare() -> None:
    Thread(target=_end_with_parent, daemon=True).start()
    prepare(Runtime(device="auto", threads=1))


def _end_with_parent() -> None:
    """End this process when the one that started it has ended; if it was killed, nothing else would tell us."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run(cell: AnyCell, grid: AnyGrid, home: Path, root: Path, cache: Path) -> None:
    manifest = read_manifest(_manifest(home, cell.dataset, cell.ratio))
    limit_pixels_of(grid.source(cell.dataset, cell.ratio))
    if isinstance(grid, YoungLine):
        assert isinstance(cell, YoungCell)
        rows = run_young_cell(cell, grid, manifest, root, cache)
    else:
        assert isinstance(cell, Cell)
        rows, scores = run_cell(cell, grid, manifest, root, cache)
        write_parquet(scores, _scores(home, cell))
    write_parquet(rows, _result(home, cell))  # last, because a cell with a result is not run again


def _scores(home: Path, cell: AnyCell) -> Path:
    return home / "scores" / f"{cell.name}.parquet"


def _result(home: Path, cell: AnyCell) -> Path:
    return home / "cells" / f"{cell.name}.parquet"


def _manifest(home: Path, dataset: str, ratio: float) -> Path:
    return home / "manifests" / f"{dataset}_{ratio:g}.parquet"


def _address(grid: AnyGrid, name: str) -> str:
    """Return the name of the folder of cells. It depends on code and grid, but not on seeds, ratios and data sets."""
    root = Path(__file__).resolve().parents[2]
    content = grid.model_dump(mode="json", exclude={"seeds", "ratios", "datasets", "candidates"})
    plugins = ", ".join(map(code_version, sorted(plugin_modules(grid))))
    version = code.code_version(plugins, code.listings(root)["benchmark"])
    return f"{name}-{hashlib.sha256((version + json.dumps(content, sort_keys=True)).encode()).hexdigest()[:12]}"


def _chosen(datasets: Mapping[str, Dataset], names: Sequence[str]) -> dict[str, Dataset]:
    unknown = sorted(set(names) - set(datasets))
    if unknown:
        raise ConfigError(f"--dataset {unknown[0]}: the grid has {sorted(datasets)}")
    return {name: datasets[name] for name in names}


def benchmark(
    config: Annotated[Path, typer.Argument(help="The grid, e.g. benchmarks/purification.yaml.")],
    processes: Annotated[
        int, typer.Option(min=1, max=1024, help="Cells at once; each uses one CPU thread.")
    ] = os.cpu_count() or 1,
    seeds: Annotated[list[int] | None, typer.Option("--seed", help="Only these of the grid's; repeatable.")] = None,
    datasets: Annotated[
        list[str] | None, typer.Option("--dataset", help="Only these of the grid's; repeatable.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for tables and pictures.")] = RESULTS,
) -> None:
    """Run a grid, or what is missing of it, and write its table."""
    grid = declared = load_grid(config)
    if seeds:
        if unknown := sorted(set(seeds) - set(grid.seeds)):
            raise ConfigError(f"--seed {unknown[0]}: the grid has {sorted(grid.seeds)}")
        grid = grid.model_copy(update={"seeds": tuple(seeds)})
    if datasets:
        grid = grid.model_copy(update={"datasets": _chosen(grid.datasets, datasets)})
    out.mkdir(parents=True, exist_ok=True)  # said now if it cannot be, not after hours
    home = BENCHMARK_FOLDER / _address(grid, config.stem)
    rows, scores = run_grid(grid, home, FEATURE_CACHE, processes)
    if load_grid(config) != declared or BENCHMARK_FOLDER / _address(grid, config.stem) != home:
        raise DataError(f"{config} or code of the table has changed while it was made: run again")
    if isinstance(grid, YoungLine):
        shown, files = _report_young_line(rows, out, config.stem)
    else:
        assert scores is not None  # only a young line lacks them
        shown, files = _report_purification(rows, scores, grid.candidates, out, config.stem)
    print(shown.to_string(index=False, float_format="%.3f", na_rep="–"))
    print("written: " + ", ".join(str(path) for path in files))
    _record(config, grid, shown, files)


def _report_purification(
    rows: pd.DataFrame, scores: pd.DataFrame, candidates: Sequence[str], out: Path, stem: str
) -> tuple[pd.DataFrame, list[Path]]:
    """Write the tables and pictures. Return the table to show, and the files."""
    closed = gap_closed(rows)
    files = [
        out / f"{stem}{suffix}"
        for suffix in (".csv", "_summary.csv", "_gap.csv", "_over_sets.csv", ".png", "_sets.png")
    ]
    write_csv(rows, files[0])
    write_csv(summary(rows, scores), files[1])
    write_csv(closed, files[2])
    over = gap_over_sets(closed)
    write_csv(over, files[3])
    table_figure(rows, files[4])
    contamination_figure(rows, files[5])
    if candidates:
        files.append(out / f"{stem}_left_out.csv")
        write_csv(left_out(closed, candidates), files[-1])
    return over, files


def _report_young_line(rows: pd.DataFrame, out: Path, stem: str) -> tuple[pd.DataFrame, list[Path]]:
    """Write the tables and pictures. Return the table to show, and the files."""
    table = over_sets(rows)
    files = [out / f"{stem}{suffix}" for suffix in (".csv", "_summary.csv", "_over_sets.csv", ".png")]
    write_csv(rows, files[0])
    write_csv(per_set(rows), files[1])
    write_csv(table, files[2])
    young_line_figure(table, files[3])
    if NONE in rows:
        curve = ranking_over_sets(rows)
        files += [out / f"{stem}_ranking.csv", out / f"{stem}_ranking.png"]
        write_csv(curve, files[-2])
        ranking_figure(curve, files[-1])
    return table, files


def _record(config: Path, grid: AnyGrid, shown: pd.DataFrame, files: list[Path]) -> None:
    """Record the table as one MLflow run. An error of the server is printed; the table stays."""
    from orchestration.tracking.mlflow_runs import record_table

    try:
        record_table(config.stem, grid.model_dump(mode="json"), shown, files)
    except Exception as error:  # whatever it is, the table is written and must stand
        print(f"WARNING: MLflow did not record the table: {type(error).__name__}: {error}", file=sys.stderr)
