"""The content of a workspace after a command, in a form that two workspaces can be compared in."""

import json
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path

import yaml

from llbnad.utils.files import file_digest

PLACES = ("data", "benchmarks", "params.yaml", "dvc.lock")
CACHE = ".dvc/cache/files/md5"
COUNTS_OF_ONE_RUN = ("images_encoded", "images_cached")  # a run that goes on finds what the killed one has encoded
# what a killed writer leaves beside its target, which nothing reads; and DVC's lists for git, which it writes when it
# ends, for the stages of that run only: the repository's own list covers all of data/
IGNORED = re.compile(r"\..*\.tmp|\.gitignore")
RUN_VERSION = re.compile(r" [0-9a-f]{8}\b( v\d+)?")
SHOWN = 3


def outputs(folder: Path) -> dict[str, str]:
    """Return a digest of everything that must not depend on kills, by its path or by `record …` in MLflow."""
    found = {path.relative_to(folder).as_posix(): _content(path) for path in _files(folder)}
    for path in (folder / CACHE).glob("??/*"):
        named = (path.parent.name + path.name).removesuffix(".dir")
        if re.fullmatch(r"[0-9a-f]{32}", named):
            whole = file_digest(path, "md5") == named
            found[path.relative_to(folder).as_posix()] = "intact" if whole else "damaged"
    return found | _records(folder)


def difference(wanted: Mapping[str, str], found: Mapping[str, str]) -> str:
    """Return what two results of `outputs` differ in, as one line; empty if they are the same.

    Objects that only DVC's cache of the second one holds do not count: nothing refers to them.
    """
    wrong = dict.fromkeys(wanted.keys() - found.keys(), "is missing")
    wrong |= {name: "is too many" for name in found.keys() - wanted.keys() if not name.startswith(CACHE)}
    wrong |= {name: "differs" for name in wanted.keys() & found.keys() if wanted[name] != found[name]}
    wrong |= {name: "is damaged" for name in found if found[name] == "damaged"}
    shown = [f"{name} {what}" for name, what in sorted(wrong.items())]
    return "; ".join([*shown[:SHOWN], *([f"and {len(shown) - SHOWN} more"] if len(shown) > SHOWN else [])])


def _files(folder: Path) -> Iterator[Path]:
    for place in PLACES:
        top = folder / place
        for path in [top] if top.is_file() else top.rglob("*"):
            if path.is_file() and not IGNORED.fullmatch(path.name):
                yield path


def _content(path: Path) -> str:
    if path.name == "dvc.lock":  # the order of its stages is that of their ends
        return json.dumps(yaml.safe_load(path.read_text()), sort_keys=True)
    return file_digest(path)


def _records(folder: Path) -> dict[str, str]:
    """Return the metrics of MLflow's finished runs by the runs' names, without hash and version of a run.

    Of several runs of a name, those of the last one count.
    """
    path = folder / "mlflow" / "mlflow.db"
    if not path.exists():
        return {}
    query = """select name, key, value from runs left join latest_metrics using (run_uuid)
        where status = 'FINISHED' order by start_time"""
    records: dict[str, dict[str, float]] = {}
    with closing(sqlite3.connect(path)) as database, suppress(sqlite3.OperationalError):  # no tables: nothing recorded
        for name, key, value in database.execute(query):
            if key not in COUNTS_OF_ONE_RUN:
                records.setdefault(RUN_VERSION.sub("", name), {})[key or ""] = value
    return {f"record {name}": json.dumps(metrics, sort_keys=True) for name, metrics in records.items()}
