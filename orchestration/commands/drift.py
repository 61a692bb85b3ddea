"""The check of a production line for drift: each batch is compared with all images that came before it.

    python -m orchestration drift LINE     writes data/drift/<line>/report.json and history.png

Images of the line that `watch` scored are compared too, with those of the last training: traffic.json.

The report on a batch is written once, when the batch is the newest, and stays the same. Reports judge arrivals and are
no step of training, so DVC does not version them.
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from llbnad.monitoring.drift import DriftReport, drift_report
from llbnad.monitoring.drift_history import drift_history
from llbnad.utils.files import write_json
from orchestration.inspection.chart import chart_check, read_chart
from orchestration.inspection.traffic import traffic_drift
from orchestration.line.arrivals import batches_of
from orchestration.pipeline import pipes
from orchestration.pipeline.features import IMAGE_ROOT, feature_store
from orchestration.pipeline.outputs import read_noisy, read_purified
from orchestration.pipeline.params import load_params
from orchestration.pipeline.paths import PARAMS, drift_dir, inspected_dir

MIN_IMAGES = 5  # on each side; of fewer nothing can be said


def watch(root: Path, line: str) -> dict[int, DriftReport]:
    """Compare the batches that have no report yet. Return all reports of the line by batch.

    Raises:
        ConfigError: there is no such scenario.
        DataError: an image cannot be read.
    """
    params = load_params(root / PARAMS)
    seed = params.scenario(line).seed
    out = root / drift_dir(line)
    known = read_reports(root, line)
    manifest = read_noisy(line, root)
    arrived, rejected = batches_of(root, line, manifest), _rejected(root, line)
    store = None
    for number in sorted(set(arrived.values()) - set(known)):
        before = sorted(image_id for image_id, batch in arrived.items() if batch < number)
        new = sorted(image_id for image_id, batch in arrived.items() if batch == number)
        if min(len(before), len(new)) < MIN_IMAGES:
            continue
        store = store or feature_store(params, line)
        known[number] = drift_report(before, new, store, manifest, root / IMAGE_ROOT, seed, rejected)
    write_json({str(number): report.to_dict() for number, report in known.items()}, out / "report.json")
    if known:
        history = {f"batch {number}": known[number] for number in sorted(known)}
        drift_history(history, out / "history.png", f"{line}: each batch and the images before it")
    return known


def read_reports(root: Path, line: str) -> dict[int, DriftReport]:
    """Read the reports written so far, by batch."""
    path = root / drift_dir(line) / "report.json"
    if not path.exists():
        return {}
    return {int(number): DriftReport.from_dict(report) for number, report in json.loads(path.read_text()).items()}


def watch_traffic(root: Path, line: str) -> DriftReport | None:
    """Compare the scored images with those of the last training, and write the report. None if there are too few."""
    report = traffic_drift(load_params(root / PARAMS), line, MIN_IMAGES)
    if report is not None:
        write_json(report.to_dict(), root / drift_dir(line) / "traffic.json")
    return report


def _rejected(root: Path, line: str) -> set[str]:
    return set(read_purified(line, "rejected", root)["image_id"])


def drift(line: Annotated[str, typer.Argument(help="Production line.")]) -> None:
    """Compare LINE's newest batches with the images before them."""
    reports = watch(Path(), line)
    for number, report in sorted(reports.items()):
        print(f"batch {number}: {report.reason}")
    compared, details = dict[str, DriftReport](), dict[str, int]()
    if reports:
        newest = max(reports)
        compared[f"batch {newest}"] = reports[newest]
        details = {"batch": newest, "images": reports[newest].n_batch}
    traffic = watch_traffic(Path(), line)
    if traffic is not None:
        print(f"scored images: {traffic.reason}")
        compared["scored images"] = traffic
        details = {**details, "scored images": traffic.n_batch}
    outcome = "; ".join(f"{what}: {report.reason}" for what, report in compared.items())
    outcome = outcome or "no earlier batch to compare with"
    passed = not any(report.drifted for report in compared.values()) if compared else None
    check = pipes.Check(pipes.DRIFT, passed, outcome, "WARN", details)
    charted = chart_check(read_chart(inspected_dir(line)), line)
    print(f"control chart: {charted.description}")
    pipes.report({"outcome": outcome, **details}, checks=[check, charted])
