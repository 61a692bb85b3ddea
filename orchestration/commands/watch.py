"""Score the images of a production line as they arrive in data/inspect/<line>/.

python -m orchestration watch LINE          until Ctrl-C; the results are in data/inspected/<line>/
python -m orchestration watch LINE --once   what is there now
"""

import signal
import sqlite3
import sys
import threading
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from llbnad.commands.common_options import MIN_AREA
from llbnad.config import Files, Runtime
from llbnad.errors import DataError
from llbnad.model.threshold import DEFECT_LABEL, UNSURE_LABEL
from llbnad.utils.pixel_limit import limit_pixels_of
from llbnad.utils.runtime import prepare
from orchestration.inspection.champion import Champion, champion_finder, model_finder
from orchestration.inspection.chart import chart_check, keep_promise, write_chart
from orchestration.inspection.inspector import Inspector, Settings
from orchestration.inspection.ledger import VIEW, Ledger, LedgerRow
from orchestration.inspection.watching import look_once, only_one
from orchestration.inspection.watching import watch as watch_folder
from orchestration.inspection.webhook import deliver_all, deliver_until, webhook_of
from orchestration.line.inbox import why_not
from orchestration.pipeline import pipes
from orchestration.pipeline.params import load_params
from orchestration.pipeline.paths import INCOMING, INSPECT, PARAMS, inspected_dir

CHART_SECONDS = 60.0  # the control chart is drawn so often


def watch(
    line: Annotated[str, typer.Argument(help="Production line; its images arrive in data/inspect/LINE/.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the results. Default: data/inspected/LINE/.")] = None,
    once: Annotated[bool, typer.Option("--once", help="Score what is there, and end.")] = False,
    train: Annotated[
        bool | None, typer.Option("--train/--no-train", help="Copy each scored image to data/incoming/LINE/ too.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="MLflow address or model file (.safetensors). Default: LINE's champion.")
    ] = None,
    webhook: Annotated[
        str | None, typer.Option(help="Address that is told each row, signed with LLBNAD_WEBHOOK_SECRET.")
    ] = None,
    fpr: Annotated[
        float | None, typer.Option(help="False positives accepted, in (0, 1). Default: the model's own rate.")
    ] = None,
    pictures: Annotated[bool, typer.Option(help="Write one picture with its heat map per image.")] = True,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 = all cores.")] = 0,
    min_area: Annotated[int | None, MIN_AREA] = None,
) -> None:
    """Score every new image of LINE as it arrives: a row, a picture, a webhook.

    What is not given here is as params.yaml says under inspection.LINE.
    """
    if reason := why_not(line):
        raise DataError(f"{INSPECT / line} is no folder of a production line: {reason}")
    params = load_params(PARAMS)
    dataset = params.datasets.get(line)
    limit_pixels_of(dataset or Files())
    target = str(prepare(Runtime(device=device, threads=threads)))
    folder = out or inspected_dir(line)
    usual = params.inspection_of(line)
    address = usual.webhook if webhook is None else webhook
    receiver = None if address is None else webhook_of(address)
    rate, area = usual.fpr if fpr is None else fpr, usual.min_area if min_area is None else min_area
    settings = Settings(
        images=INSPECT / line,
        late_seconds=params.arrival.stable_seconds,
        inbox=INCOMING / line if (usual.train if train is None else train) else None,
        messages=receiver is not None,
        pictures=pictures,
    )
    settings.images.mkdir(parents=True, exist_ok=True)
    with only_one(folder), closing(Ledger(folder)) as ledger:
        champion = Champion(champion_finder(line) if model is None else model_finder(model), target, rate, area)
        inspector = Inspector(settings, ledger, champion)
        keep_promise(folder, champion.current)
        if once:
            rows = look_once(inspector)
            if receiver is not None:
                deliver_all(ledger, receiver)
            chart = write_chart(folder, line)
            print(_summary(line, rows, inspector.waiting), f"results in {folder / VIEW}", sep="; ")
            details = {**_metadata(line, champion, rows, inspector.waiting), **_newest(chart)}
            pipes.report(details, checks=[chart_check(chart, line)])
            return
        print(
            f"{champion.current.name} scores what arrives in {settings.images}; results in {folder / VIEW}", flush=True
        )
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        champion.follow(stop)
        if receiver is not None:
            deliver_until(folder, receiver, stop)
        _draw_until(folder, line, champion, stop)
        watch_folder(inspector, stop, lambda row: print(_line(row), flush=True))
        write_chart(folder, line)


def _draw_until(folder: Path, line: str, champion: Champion, stop: threading.Event) -> None:
    """Renew the control chart every minute, in a thread, until `stop` is set."""

    def draw() -> None:
        while not stop.wait(CHART_SECONDS):
            try:
                keep_promise(folder, champion.current)
                write_chart(folder, line)
            except (OSError, sqlite3.OperationalError) as error:  # scoring goes on
                print(f"no control chart: {error}", file=sys.stderr, flush=True)

    threading.Thread(target=draw, daemon=True).start()


def _newest(chart: pd.DataFrame) -> dict[str, Any]:
    """Return the newest hour of the chart in words, by label."""
    newest = chart[chart["hour"] == chart["hour"].max()]
    return {
        f"{row['label']} in the newest hour": f"{row['share']:.1%} of {row['images']} images"
        + (f", outside the limits ({row['outside']})" if row["outside"] else "")
        for row in newest.to_dict("records")
    }


def _line(row: LedgerRow) -> str:
    score = "" if row.score is None else f" {row.score:.4f}"
    regions = f", {row.regions} regions, the largest of {row.largest_area} pixels" if row.regions else ""
    return f"{row.scored} {row.path}: {row.error or row.label or 'scored'}{score}{regions}"


def _counts(rows: list[LedgerRow]) -> dict[str, int]:
    labels = Counter(row.label for row in rows)
    return {
        "images scored": sum(row.score is not None for row in rows),
        "defects": labels[DEFECT_LABEL],
        "unsure": labels[UNSURE_LABEL],
        "bad images": sum(bool(row.error) for row in rows),
        "with regions": sum(bool(row.regions) for row in rows),
    }


def _summary(line: str, rows: list[LedgerRow], waiting: int) -> str:
    counts = ", ".join(f"{number} {name}" for name, number in _counts(rows).items())
    return f"{line}: {counts}; {waiting} files not complete yet"


def _metadata(line: str, champion: Champion, rows: list[LedgerRow], waiting: int) -> dict[str, Any]:
    return {"line": line, "model": champion.current.name, **_counts(rows), "files not complete yet": waiting}
