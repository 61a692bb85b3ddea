"""The training images with their scores as tables for people: all of them, and the suspects with the reason."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pandas as pd

from llbnad.config import Aggregation
from llbnad.data.names import shown_name
from llbnad.purification.limit import suspicious_from
from llbnad.purification.notes import apart_from, suspects
from llbnad.purification.purify import Purified

COLUMNS = ["name", "score", "suspicious_from", "status", "verdict", "path", "image_id"]
REASON = "reason"  # beside these on the list of suspects
STATUS_LEFT_OUT = "left out"  # by a fixed share alone


def policy_decisions(scores: pd.Series, purified: Purified) -> dict[str, str]:
    """Return what the policy alone decided on each image, `kept` or `rejected`, before people's verdicts.

    The policy keeps the lowest scores. Where several images have the score of the cut, their status decides.

    Args:
        scores: consensus scores of the training images, by image id.
        purified: the decision, overridden by people's verdicts.
    """
    rejected = set(purified.rejected)
    tied = scores == purified.cut
    tie = int(tied.sum()) > 1
    return {
        str(image_id): "rejected" if score > purified.cut or (tie and at_cut and image_id in rejected) else "kept"
        for image_id, score, at_cut in zip(scores.index, scores, tied, strict=True)
    }


def score_list(
    scores: pd.Series,
    purified: Purified,
    paths: Mapping[str, str],
    verdicts: Mapping[str, str] = MappingProxyType({}),
    aggregation: Aggregation = "oof_mean",
) -> pd.DataFrame:
    """Return one row per training image, highest score first.

    Args:
        scores: consensus scores, by image id.
        purified: which images are kept and rejected.
        paths: path of each image by id.
        verdicts: people's verdicts by image id.
        aggregation: how the scores were made.

    Returns:
        name (the camera's), score, suspicious_from (a score: `llbnad.purification.limit`), status
        (kept, rejected or excluded; left out, if a fixed share alone rejects it), verdict (a person's; empty without
        one), path, image_id.
    """
    status = dict.fromkeys(purified.kept, "kept") | dict.fromkeys(purified.rejected, "rejected")
    if not purified.by_evidence:
        status |= {one: STATUS_LEFT_OUT for one in purified.rejected if one not in verdicts}
    # images that people excluded may have no path: they are then not listed
    ordered = scores[scores.index.isin(list(paths))].sort_index().sort_values(ascending=False, kind="stable")
    ids = [str(image_id) for image_id in ordered.index]
    return pd.DataFrame(
        {
            "name": [shown_name(paths[image_id]) for image_id in ids],
            "score": ordered.to_numpy(),
            "suspicious_from": np.float32(suspicious_from(scores, purified, aggregation).value),
            "status": [status.get(image_id, "excluded") for image_id in ids],
            "verdict": [verdicts.get(image_id, "") for image_id in ids],
            "path": [paths[image_id] for image_id in ids],
            "image_id": ids,
        },
        columns=COLUMNS,
    )


def suspect_list(
    table: pd.DataFrame,
    purified: Purified,
    paths: Mapping[str, str],
    count: int,
    verdicts: Mapping[str, str] = MappingProxyType({}),
    aggregation: Aggregation = "oof_mean",
) -> pd.DataFrame:
    """Return the rows of `score_list` that deserve a look, each with the reason.

    These are the images that are rejected, stand apart or were judged, and the `count` highest scores. The list is
    therefore never empty where there are images, also if nothing is rejected. What a fixed share leaves out is no
    reason to be listed.

    Args:
        table: consensus scores of the training images, indexed by image id: sub_model_0 …, subset, score.
        purified: which images are kept and rejected.
        paths: path of each image by id.
        count: number of highest scores.
        verdicts: people's verdicts by image id.
        aggregation: how the scores were made.
    """
    rows = score_list(table["score"], purified, paths, verdicts, aggregation)
    decided = policy_decisions(table["score"], purified)
    apart = set(suspects(table, purified, paths)["image_id"])
    decided_on = table["score"][table.index.isin([*purified.kept, *purified.rejected])]
    standing = f"stands apart (above {apart_from(decided_on.to_numpy()):.4g})"
    judged = zip(rows["image_id"], rows["verdict"], strict=True)
    reasons = [
        _reason(
            purified, decided[image_id], verdict,
            standing if image_id in apart else f"one of the {count} highest scores" if place < count else "",
        )
        for place, (image_id, verdict) in enumerate(judged)
    ]  # fmt: skip
    rows.insert(COLUMNS.index("path"), REASON, reasons)
    return rows[rows[REASON] != ""].reset_index(drop=True)


def _reason(purified: Purified, decided: str, verdict: str, beside: str) -> str:
    """Return why an image is on the list; empty if it is not.

    Args:
        purified: the decision on all images.
        decided: what the policy decided.
        verdict: a person's verdict; empty without one.
        beside: what its score alone says; empty if that is no reason.
    """
    own = {"normal": "kept by a person", "defect": "rejected by a person", "exclude": "excluded by a person"}
    rejected = decided == "rejected" and purified.by_evidence
    fate = purified.fate(decided, "the ") + (f" (above {purified.cut:.4g})" if rejected else "")
    parts = [fate if rejected or verdict or beside else "", own.get(verdict, ""), beside]
    return ", ".join(part for part in parts if part)
