"""`python -m orchestration ingest`: take in what arrived in the inboxes of production lines, without training."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from llbnad.errors import DataError
from orchestration.line.inbox import lines
from orchestration.line.ingest import ingest as take_in
from orchestration.pipeline import dvc
from orchestration.pipeline.params import load_params
from orchestration.pipeline.paths import INCOMING, PARAMS


def ingest(
    names: Annotated[list[str] | None, typer.Argument(metavar="[LINE]…", help="Folders of data/incoming.")] = None,
) -> None:
    """Take in the images that arrived: those of the lines named, or of all lines."""
    root = Path.cwd()
    settings = load_params(root / PARAMS).arrival
    found = lines(root)
    if names and (unknown := sorted(set(names) - set(found))):
        raise DataError(f"no folder of {unknown} in {INCOMING}; there is {sorted(found) or 'none'}")
    for line in names or found:
        if not names and found[line]:
            print(f"{line}: skipped, {found[line]}", file=sys.stderr)
            continue
        print(take_in(root, line, settings.stable_seconds, dvc.add))
