"""Metadata of a stage's outputs for Dagster: row counts, numbers, tables and pictures, by the kind of file."""

import csv
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from llbnad.config import METHOD
from llbnad.utils.files import file_digest
from orchestration.assets.pictures import picture
from orchestration.pipeline.paths import FINAL_STAGE, stage_dir
from orchestration.pipeline.settings import settings_path
from orchestration.pipeline.tables import escaped, for_people, plain_table
from orchestration.registry.store import model_name
from orchestration.tracking.server import run_page

PREVIEW_ROWS = 100  # of a CSV file; numbers are rounded for people, the files hold all digits
# entries of metadata: those that come first, and those that come last
FIRST = (
    "outcome",
    "summary",
    "beside earlier results",
    "policy",
    "not kept",
    "all suspects",
    "images are in",
    "model file",
    "to score images",
    "to score by the champion",
    "notes",
    "to judge the suspects",
    "mlflow",
)
LAST = ("dvc stage", "command", "outputs")
SHORT = 900  # characters of Markdown; Dagster's pages show a thousand at once, and hide more behind a click
# columns of a table with `name` that would push its others out of sight
LEFT_OUT = ["suspicious_from", "path", "image_id"]
HIDDEN = {"validation.json", "index.json"}  # shown as asset checks; too long
HIDDEN_FOLDERS = {"images", "params", "read_by"}  # counted by the manifest; shown as settings


def metadata(paths: Mapping[str, str], root: Path, scenario: str) -> dict[str, Any]:
    """Return Dagster's metadata for a stage.

    Args:
        paths: hashes of the stage's outputs by path, from dvc.lock.
        root: root of the repository.
        scenario: scenario of the link to MLflow.
    """
    files = [file for path in sorted(paths) for file in _files(root / path)]
    shown = metadata_of_files(files)
    shown |= lines_of("outputs", [f"{path}: {md5}" for path, md5 in sorted(paths.items())])
    if any(Path(path).is_relative_to(stage_dir("purified", scenario)) for path in paths):
        shown |= of_purification(root, scenario)
    if stage_dir("detector", scenario).as_posix() in paths:
        shown |= of_detector(scenario)
    link = root / "mlflow" / "runs" / f"{scenario}.json"
    if link.exists():
        run, settings = json.loads(link.read_text()), root / settings_path(scenario)
        # show the link only if the recorded run had these settings
        if settings.exists() and run.get("md5.settings") == file_digest(settings, "md5"):
            shown["mlflow"] = dg.MetadataValue.url(run_page(run))
            evaluated = any(Path(path).is_relative_to(stage_dir(FINAL_STAGE, scenario)) for path in paths)
            if evaluated and run.get("beside"):
                shown["beside earlier results"] = run["beside"]
    return shown


def of_purification(root: Path, scenario: str) -> dict[str, Any]:
    """Return what decided on a scenario's images, and how people look at them, as metadata of its kept images.

    Empty where the outputs are not on this machine, as after `slices collect`.
    """
    file = root / settings_path(scenario)
    if not file.exists():
        return {}
    content = json.loads(file.read_text())
    policy = ", ".join(f"{key} {value}" for key, value in content["selection"].items() if key != "policy")
    return {
        "policy": content["selection"]["policy"] + (f" ({policy})" if policy else ""),
        **_counts(root, scenario),
        "to judge the suspects": f"python -m orchestration review {scenario} --out review.html",
    }


def _counts(root: Path, scenario: str) -> dict[str, str]:
    """Return how many images the policy did not keep, and where the list of all suspects is."""
    folder = stage_dir("purified", scenario)
    summary, suspects = root / folder / "summary.json", folder / "suspects.csv"
    if not summary.exists():
        return {}
    numbers = json.loads(summary.read_text())
    away = f"{numbers['n_train'] - numbers['n_selected']} of {numbers['n_train']} images"
    if not (root / suspects).exists():
        return {"not kept": away}
    with (root / suspects).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    folders = [str(Path(row["path"]).parent) for row in rows]
    fates = ", ".join(f"{count} {status}" for status, count in Counter(row["status"] for row in rows).items())
    listed = f"{suspects} ({len(rows)} images: {fates})"
    return {
        "not kept": away,
        "all suspects": f"{listed}; scores.csv beside it has all images with their fate",
        "images are in": os.path.commonpath(folders or ["data"]),
    }


def of_detector(scenario: str) -> dict[str, str]:
    """Return which file the detector is, and how images are scored with it."""
    file = stage_dir("detector", scenario) / f"{METHOD}.safetensors"
    return {
        "model file": str(file),
        "to score images": f"llbnad predict {file} FOLDER --out SCORED",
        "to score by the champion": f"python -m orchestration predict models:/{model_name(scenario)}@champion FOLDER "
        "--out SCORED (once there is a champion; a detector that was refused is none)",
    }


def in_order(shown: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata with what people look for first: words, pictures and suspects before counts and hashes."""
    return dict(sorted(shown.items(), key=lambda entry: _place(*entry)))


def _place(name: str, value: Any) -> int:
    """Return where an entry stands: words, pictures, suspects, numbers, other tables, provenance."""
    unnumbered = name.rstrip(" 0123456789")
    if unnumbered in FIRST:
        return FIRST.index(unnumbered)
    if unnumbered in LAST:
        return 100 + LAST.index(unnumbered)
    if name.endswith("(picture)"):
        return 20 + (name != "suspects (picture)")
    if isinstance(value, dg.TableMetadataValue):
        return 30 if name.startswith("suspects.csv") else 50
    return 40


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> dg.TableMetadataValue:
    """Return a table as metadata; each row has one value per column."""
    plain = plain_table(columns, rows)
    schema = dg.TableSchema(columns=[dg.TableColumn(name, kind) for name, kind in plain.types.items()])
    return dg.MetadataValue.table([dg.TableRecord(record) for record in plain.records], schema)


def lines_of(name: str, lines: Sequence[str]) -> dict[str, Any]:
    """Return lines as a list; an entry per line, `name 1`, `name 2` …, where Dagster's pages would hide the list.

    Dagster's pages show a text of several lines as one, and a wide table with its right end cut off.
    """
    listed = "\n".join(f"* {escaped(line)}" for line in lines)
    if len(listed) <= SHORT:
        return {name: dg.MetadataValue.md(listed)}
    return {f"{name} {number}": line for number, line in enumerate(lines, 1)}


def metadata_of_files(files: Sequence[Path]) -> dict[str, Any]:
    """Return Dagster's metadata for single files. Counts of 0 and empty tables are only named, in one entry each."""
    shown: dict[str, Any] = {}
    empty = [file.name for file in files if file.suffix in (".parquet", ".csv") and not _rows(file)]
    for file in files:
        if file.name not in {*HIDDEN, *empty}:
            shown.update(_of_file(file))
    zeros = [name for name, value in shown.items() if type(value) is int and value == 0]
    named = {"tables without a row": empty, "counts of 0": zeros}
    shown = {name: value for name, value in shown.items() if name not in zeros}
    return {**shown, **{title: ", ".join(names) for title, names in named.items() if names}}


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if path.name in HIDDEN_FOLDERS or not path.is_dir():
        return []
    return sorted(file for file in path.rglob("*") if file.is_file())


def _rows(file: Path) -> int:
    """Return the number of rows of a parquet or CSV file."""
    if file.suffix == ".parquet":
        import pyarrow.parquet as pq

        return int(pq.read_metadata(file).num_rows)
    import pandas as pd

    return len(pd.read_csv(file))


def _of_file(file: Path) -> dict[str, Any]:
    if file.suffix == ".parquet":
        import pyarrow.parquet as pq

        shown: dict[str, Any] = {f"rows of {file.name}": _rows(file)}
        if file.name == "scores.parquet" and "subset" in pq.read_schema(file).names:
            counts = pq.read_table(file, columns=["subset"])["subset"].value_counts().to_pylist()
            sizes = sorted((count["values"], count["counts"]) for count in counts)
            shown["images of each subset"] = ", ".join(str(size) for _, size in sizes)
        return shown
    if file.suffix == ".csv":
        import pandas as pd

        content = pd.read_csv(file)
        if "name" in content:
            content = content.drop(columns=LEFT_OUT, errors="ignore").dropna(axis="columns", how="all")
        if "method" in content and len(content) > 1:  # what all methods share would push the others out of sight
            content = content.loc[:, content.nunique() > 1]
        rows = content.head(PREVIEW_ROWS).itertuples(index=False, name=None)
        first = f"{file.name}, first {PREVIEW_ROWS} of {len(content)} rows"
        name = first if len(content) > PREVIEW_ROWS else file.name
        return {f"rows of {file.name}": len(content), name: table(list(content.columns), rows)}
    if file.suffix == ".json":
        numbers = json.loads(file.read_text())
        if file.name == "settings.json":
            return {"settings": dg.MetadataValue.json(numbers)}
        shown = {key: for_people(value) for key, value in numbers.items() if isinstance(value, int | float)}
        if notes := numbers.get("notes"):
            shown |= lines_of("notes", notes)
        return shown
    if file.suffix == ".png":
        return {f"{file.stem} (picture)": picture(file)}
    return {}
