"""`make audit`: check that this code makes the outputs in dvc.lock from the raw data.

First, the content of all outputs here and of DVC's cache is compared with the hashes that were recorded.
In a temporary clone of the last commit, with an empty cache, everything is computed again and compared, output by
output, with the committed dvc.lock. The kernels of another CPU may round differently. If bytes differ, the metrics are
therefore compared with the committed data/reference.json, to tell rounding from a real difference.

    python -m orchestration audit                     exit code 0 identical, 1 different, 2 could not be done
    python -m orchestration audit --outputs-only      compare the bytes here with dvc.lock, compute nothing
    python -m orchestration audit --save-reference    write data/reference.json from the outputs here
"""

import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.table import Table

from llbnad.errors import DataError
from llbnad.utils.files import write_json
from orchestration.pipeline import dvc
from orchestration.pipeline.git import run_git, said_by
from orchestration.pipeline.params import Params, load_params
from orchestration.pipeline.paths import DATA, PARAMS, stage_dir
from orchestration.pipeline.process import echoed_stderr
from orchestration.pipeline.verify import damaged_cache, damaged_outputs

REFERENCE = DATA / "reference.json"


@dataclass(frozen=True)
class Comparison:
    """One output, as committed and as computed again."""

    stage: str
    path: str
    committed: str | None  # MD5; None where it is in one dvc.lock only
    computed: str | None

    @property
    def identical(self) -> bool:
        """Whether both are there and have the same bytes."""
        return self.committed == self.computed


def audit_commit(root: Path, console: Console) -> list[Comparison]:
    """Compute the last commit of the repository at `root` again and compare.

    Raises:
        DataError: there is no commit or no committed dvc.lock, or raw data is missing.
        DvcError: a stage failed in the clone.
    """
    try:
        committed = yaml.safe_load(_git(root, "show", "HEAD:dvc.lock")) or {}
    except DataError as error:
        raise DataError(f"{error}; an audit needs a committed dvc.lock: `make run`, then commit it") from None
    changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    if changed:
        console.print(f"[yellow]not part of the audit, which takes the last commit:[/yellow]\n{changed}")
    with tempfile.TemporaryDirectory(prefix="llbnad-audit-") as place:
        clone = Path(place) / "clones" / "clone"
        _git(root, "clone", "--quiet", "--no-hardlinks", str(root), str(clone))
        params = load_params(clone / PARAMS)
        _link_raw_data(params, root, clone)
        console.print(f"computing everything again in {clone}, with an empty cache …")
        os.environ.pop("MLFLOW_TRACKING_URI", None)  # an audit is no training run: it is recorded in the clone alone
        with (
            echoed_stderr() as (stderr, complaints),
            dvc.running(["repro", "--force"], clone, stdout=None, stderr=stderr) as process,
        ):
            code = process.wait()
        dvc.raise_if_not_kept("`dvc repro` in the clone", complaints.decode(errors="replace"))
        if code != 0:
            raise dvc.DvcError("`dvc repro` failed in the clone; its messages stand above")
        compared = compare(committed, dvc.read_lock(clone))
        _report(compared, console)
        if not all(one.identical for one in compared):
            _report_metrics(clone / REFERENCE, metrics(params, clone), console)
    return compared


def compare(committed: dict[str, Any], computed: dict[str, Any]) -> list[Comparison]:
    """Compare the contents of two dvc.lock files, output by output."""
    names = sorted({*committed.get("stages", {}), *computed.get("stages", {})})
    compared = []
    for stage in names:
        before, after = dvc.outputs(committed, stage), dvc.outputs(computed, stage)
        compared += [Comparison(stage, path, before.get(path), after.get(path)) for path in sorted({*before, *after})]
    return compared


def metrics(params: Params, root: Path) -> dict[str, dict[str, float | None]]:
    """Return the metrics of each scenario's final detector, as its evaluation wrote them."""
    found = {}
    for scenario in params.scenarios:
        path = root / stage_dir("evaluation", scenario) / "metrics.json"
        if not path.exists():
            raise DataError(f"{path} is missing: run `dvc repro` first")
        content = json.loads(path.read_text())
        found[scenario] = {name: value for name, value in content.items() if not isinstance(value, list | str)}
    return found


def _report(compared: list[Comparison], console: Console) -> None:
    table = Table(title="dvc.lock, as committed and as computed again")
    for heading in ("stage", "output", "committed", "computed", ""):
        table.add_column(heading, overflow="fold")
    for one in compared:
        style = "" if one.identical else "bold red"
        hashes = (one.committed or "–", one.computed or "–")
        table.add_row(one.stage, one.path, *hashes, "identical" if one.identical else "different", style=style)
    console.print(table)
    different = sum(not one.identical for one in compared)
    console.print(f"{len(compared) - different} outputs identical, {different} different")


def _report_metrics(reference: Path, computed: dict[str, dict[str, float | None]], console: Console) -> None:
    if not reference.exists():
        console.print(f"no {REFERENCE} in the commit, so metrics cannot be compared: audit --save-reference writes it")
        return
    table = Table(title="metrics of the final detector, as committed and as computed again")
    for heading in ("scenario", "metric", "committed", "computed", "difference"):
        table.add_column(heading)
    for scenario, values in json.loads(reference.read_text()).items():
        for name, before in values.items():
            after = computed.get(scenario, {}).get(name)
            if before is not None and after is not None:
                table.add_row(scenario, name, f"{before:.6f}", f"{after:.6f}", f"{after - before:+.6f}")
    console.print(table)


def _link_raw_data(params: Params, root: Path, clone: Path) -> None:
    """Link raw data that git does not hold into the clone, so that it is read where it is."""
    for dataset in params.datasets.values():
        source, target = root / dataset.root, clone / dataset.root
        if Path(dataset.root).is_absolute() or target.exists():
            continue
        if not source.exists():
            raise DataError(f"raw data {source} is missing: restore it (`dvc pull`) and audit again")
        link = Path(os.path.normpath(target))
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(source.resolve())
        # with a record beside the link, DVC would take it for its own, and a forced run would overwrite the linked data
        link.with_name(f"{link.name}.dvc").unlink(missing_ok=True)


def _git(root: Path, *arguments: str) -> str:
    done = run_git(root, *arguments)
    if done.returncode != 0:
        raise DataError(f"`git {' '.join(arguments)}` failed: {said_by(done)}")
    return done.stdout.strip()


def audit(
    save_reference: Annotated[bool, typer.Option(help="Only write data/reference.json from the outputs here.")] = False,
    outputs_only: Annotated[
        bool,
        typer.Option(help="Only compare the outputs here and DVC's cache with the recorded hashes; compute nothing."),
    ] = False,
) -> None:
    """Compute the last commit again from raw data and compare with its dvc.lock; exit code 1 if they differ."""
    root, console = Path.cwd(), Console(width=160 if not sys.stdout.isatty() else None)
    if save_reference:
        write_json(metrics(load_params(PARAMS), root), REFERENCE)
        console.print(f"{REFERENCE} written; commit it together with dvc.lock")
        return
    damaged = [*damaged_outputs(root), *damaged_cache(root)]
    for one in damaged:
        console.print(str(one), style="bold red", soft_wrap=True, highlight=False)
    if not damaged:
        console.print("the outputs here and DVC's cache hold the bytes that were recorded")
    if outputs_only:
        raise typer.Exit(1 if damaged else 0)
    compared = audit_commit(root, console)
    if damaged or not all(one.identical for one in compared):
        raise typer.Exit(1)
