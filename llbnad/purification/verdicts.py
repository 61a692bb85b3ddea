"""People's verdicts on images: they override the policy, and a new detector has to agree with them.

A CSV file with the header `image_id,verdict`, written by the review page (`llbnad.review.page`) or by hand:

| verdict   | purification                | evaluation                                              |
|-----------|-----------------------------|---------------------------------------------------------|
| `normal`  | kept, whatever its score    | labelled normal, where the data set has no label        |
| `defect`  | rejected                    | labelled a defect, where the data set has no label      |
| `exclude` | neither kept nor rejected   | left out                                                |

The sub-models of the first round may have trained on any of these images, and the policy's cut is computed with all of
them. A further round trains on what the round before kept, verdicts counted, so that its scores and its cut move with
them. A verdict changes the images that the final detector and its comparators train on.

A label is a test only of a detector that did not learn the image: metrics are of images that are set aside for testing
(`llbnad.evaluation.evaluate`), and verdicts on other images are held against a new detector one by one
(`llbnad.monitoring.verdict_check`).
"""

import csv
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd

from llbnad.data.manifest import NORMAL
from llbnad.errors import DataError
from llbnad.purification.purify import Purified
from llbnad.utils.files import refuse_special, replacing

HEADER = ["image_id", "verdict"]
VERDICTS = ("normal", "defect", "exclude")
DEFECT = "defect"  # anomaly_class of an image that a person called a defect
IMAGE_ID = re.compile(r"[0-9a-f]{64}")


def read_verdicts(path: Path) -> dict[str, str]:
    """Return the verdict of each image id in a review file.

    Raises:
        DataError: the file is missing or malformed, a verdict is unknown, or an image occurs twice.
    """
    refuse_special(path, f"a CSV file with the header {','.join(HEADER)}")
    try:
        # utf-8-sig: spreadsheets begin the file with a byte-order mark
        lines = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    except FileNotFoundError:
        raise DataError(f"review file {path} is missing: create it with the line {','.join(HEADER)}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV file in UTF-8: {error}") from None
    header = [cell.strip() for cell in lines[0]] if lines else []
    if header != HEADER:
        raise DataError(f"{path}:1: the header is {','.join(header)!r}; expected {','.join(HEADER)!r}")
    verdicts: dict[str, str] = {}
    where: dict[str, int] = {}
    for number, cells in enumerate(lines[1:], start=2):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(HEADER):
            raise DataError(f"{path}:{number}: {len(cells)} columns; expected {len(HEADER)}: {','.join(HEADER)}")
        image_id, verdict = (cell.strip() for cell in cells)
        if not IMAGE_ID.fullmatch(image_id):
            raise DataError(f"{path}:{number}: image_id is {image_id!r}; expected 64 hex digits, the file's SHA-256")
        if verdict not in VERDICTS:
            raise DataError(f"{path}:{number}: verdict is {verdict!r}; expected one of {', '.join(VERDICTS)}")
        if image_id in verdicts:
            raise DataError(f"{path}:{number}: image_id {image_id} is in line {where[image_id]} already: keep one line")
        verdicts[image_id], where[image_id] = verdict, number
    return verdicts


def write_verdicts(verdicts: Mapping[str, str], path: Path) -> None:
    """Write a review file, sorted by image id."""
    rows = [",".join(HEADER), *(f"{image_id},{verdicts[image_id]}" for image_id in sorted(verdicts))]
    with replacing(path) as temporary:
        temporary.write_text("\n".join(rows) + "\n", encoding="utf-8", newline="\n")


def excluded(verdicts: Mapping[str, str]) -> list[str]:
    """Return the ids of the images to leave out, sorted."""
    return sorted(image_id for image_id, verdict in verdicts.items() if verdict == "exclude")


def with_verdicts(manifest: pd.DataFrame, verdicts: Mapping[str, str]) -> pd.DataFrame:
    """Return `manifest` without the excluded images. Verdicts fill in labels that the data set lacks."""
    remaining = manifest[~manifest["image_id"].isin(excluded(verdicts))]
    classes = {"normal": NORMAL, "defect": DEFECT}
    said = {image_id: classes[verdict] for image_id, verdict in verdicts.items() if verdict in classes}
    labels = remaining["anomaly_class"].astype("object")
    filled = labels.where(labels.notna(), remaining["image_id"].map(said))
    return remaining.assign(anomaly_class=filled.where(filled.notna(), None))


def override(purified: Purified, verdicts: Mapping[str, str]) -> Purified:
    """Return the policy's decision, overridden by people's verdicts. An image without a verdict keeps its status.

    Args:
        purified: the policy's decision.
        verdicts: verdicts by image id. Verdicts on unknown images have no effect. Excluded images become neither kept
            nor rejected.

    Raises:
        DataError: no image would be kept.
    """
    kept, rejected = set(purified.kept), set(purified.rejected)
    for image_id in (kept | rejected) & verdicts.keys():
        kept.discard(image_id)
        rejected.discard(image_id)
        if verdicts[image_id] != "exclude":
            (kept if verdicts[image_id] == "normal" else rejected).add(image_id)
    if not kept:
        raise DataError("the verdicts leave no image to train on: call at least some images normal")
    return replace(purified, kept=tuple(sorted(kept)), rejected=tuple(sorted(rejected)))


def verdict_summary(
    verdicts: Mapping[str, str], manifest: pd.DataFrame, by_policy: Purified, final: Purified
) -> dict[str, int]:
    """Count the verdicts of each kind, the verdicts on images outside the scenario, and the images overruled.

    Args:
        verdicts: verdicts by image id.
        manifest: manifest of all images of the scenario.
        by_policy: the policy's decision.
        final: the decision after the verdicts.
    """
    known = set(manifest["image_id"])
    own = {image_id: verdict for image_id, verdict in verdicts.items() if image_id in known}
    counts = {f"n_verdict_{name}": list(own.values()).count(name) for name in VERDICTS}
    moved = (set(by_policy.kept) ^ set(final.kept)) - set(excluded(own))
    return {**counts, "n_verdict_elsewhere": len(verdicts) - len(own), "n_overruled": len(moved)}
