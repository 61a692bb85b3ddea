"""Notes on a run: one plain line for each thing to know before one trusts its detector.

The notes say how many images were kept and which of them stand apart, and whether there are few images, sub-models that
disagree, or a threshold whose rate nobody has measured.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from llbnad.data.names import listed, shown_name
from llbnad.model.robust_bound import FEWEST_SCORES
from llbnad.model.threshold import CONFIDENCE, FalsePositives, Threshold
from llbnad.purification.aggregate import agreement
from llbnad.purification.purify import Purified
from llbnad.utils.lower_half import lower_half, reach

FEW = 100  # images; below, the policy often finds no second mode, and 1 % of false positives cannot be promised
APART = 1.5  # spreads above the largest score that is expected of as many normal images
AGREEMENT = 0.5  # rank correlation below which two sub-models disagree
NAMED = 8  # names in a line


def suspects(table: pd.DataFrame, purified: Purified, paths: Mapping[str, str]) -> pd.DataFrame:
    """Return the images whose consensus scores stand apart from the body of the scores, kept or not.

    Args:
        table: consensus scores of the training images, indexed by image id: sub_model_0 …, subset, score.
        purified: which images are kept and rejected. Images that people excluded are in neither.
        paths: path of each image by id.

    Returns:
        image_id, path, score and status (kept or rejected), highest score first; empty if the scores show no body.
    """
    status = dict.fromkeys(purified.kept, "kept") | dict.fromkeys(purified.rejected, "rejected")
    scores = table["score"][table.index.isin(list(status))].sort_index().sort_values(ascending=False, kind="stable")
    apart = scores[scores > apart_from(scores.to_numpy())]
    ids = [str(image_id) for image_id in apart.index]
    return pd.DataFrame(
        {
            "image_id": pd.Series(ids, dtype=object),
            "path": pd.Series([paths[image_id] for image_id in ids], dtype=object),
            "score": apart.to_numpy(),
            "status": pd.Series([status[image_id] for image_id in ids], dtype=object),
        }
    )


def apart_from(scores: np.ndarray) -> float:
    """Return the score from which images stand apart; infinite if the scores show no body.

    It follows from the lower half alone, since up to half of the training images may be defects.
    """
    body = lower_half(scores) if len(np.unique(scores)) >= FEWEST_SCORES else None
    return np.inf if body is None or body.spread <= 0 else body.at(reach(len(scores), 1) + APART)


def selection_notes(table: pd.DataFrame, purified: Purified, paths: Mapping[str, str]) -> list[str]:
    """Return the notes on stage 1: images kept, suspects among them, few images, sub-models that disagree.

    Arguments are those of `suspects`.
    """
    count = len(purified.kept) + len(purified.rejected)
    found = suspects(table, purified, paths)
    names = [shown_name(path) for path in found["path"][found["status"] == "kept"]]
    nothing = "" if purified.rejected else ": the policy sees no second group of scores"
    if not purified.by_evidence:
        nothing = ", a fixed share, which says nothing of the others"
    apart = "no kept image stands apart"
    if names:
        images = "1 image stands" if len(names) == 1 else f"{len(names)} images stand"
        apart = f"{images} apart: {listed(names, NAMED)}"
    notes = [f"kept {len(purified.kept)} of {count}{nothing}; {apart}"]
    if count < FEW:
        notes.append(
            f"few images: {count} where {FEW} are wanted, so defects may be among the kept: look at the highest scores "
            "yourself"
        )
    lowest = agreement(table)
    if lowest is not None and lowest < AGREEMENT:
        notes.append(
            f"sub-models disagree: their lowest rank correlation is {lowest:.2f}, so what was rejected is uncertain"
        )
    return notes


def threshold_notes(threshold: Threshold | None, measured: FalsePositives | None = None) -> list[str]:
    """Return the notes on a threshold: a rate that is only promised, or that breaks the promise; images that are alike.

    Args:
        threshold: threshold of the final detector; None if it has none.
        measured: its false positives on labelled images that the detector did not learn; None without such images.
    """
    if threshold is None:
        return ["no threshold: the detector gives scores and calls nothing a defect (calibration.folds is 0)"]
    alike = [threshold.bursts.describe()] if threshold.bursts is not None and threshold.bursts.alike else []
    broken = measured is not None and threshold.breaks(*measured)
    if threshold.attained and measured is not None and not broken:
        return alike
    rule = "largest calibration scores" if threshold.decided_by == "conformal" else "body of the calibration scores"
    why = "there are too few images" if threshold.decided_by == "conformal" else "the largest scores stand apart"
    missed = "" if threshold.attained else f", where {threshold.target_fpr:.2%} were asked for, because {why}"
    promised = (
        f"{threshold.promised_fpr:.2%} false positives{missed}; from the {rule} of {threshold.n} images, for images "
        f"like the kept ones, {threshold.fpr_low:.2%} to {threshold.fpr_high:.2%} at {CONFIDENCE:.0%} confidence"
    )
    if measured is None:
        return [f"expect {promised}; no labelled normal image tests it", *alike]
    rate = f"{measured.alarms / measured.images:.2%} false positives on {measured.images} labelled normal test images"
    return [f"{rate}{', more than it promises' if broken else ''}; promised are {promised}", *alike]
