"""The checks that a new detector must pass to follow the detector in use, the champion.

The checks are plain arithmetic on scores of the same probe images. They need no labels, but use the labels that exist.
Every finding says what was observed and what was expected. A comparison that cannot be made, because there is no
champion or there are too few images, passes and says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from llbnad.config import Promotion
from llbnad.evaluation.metrics import ranking
from llbnad.model.threshold import Threshold
from llbnad.monitoring.novelty import ENOUGH, Novelty
from llbnad.monitoring.probe import Probe

CHECKS = (
    "finite_scores", "spread", "threshold", "separation", "agreement", "labelled", "kept_share", "alarms", "shift",
)  # fmt: skip
CHANCE = 0.01  # alarms with a lower probability than this are no accident
PEOPLE = "to accept them, call them normal in the review file, or promote by hand"


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    name: str
    passed: bool
    observed: str
    expected: str


def judge(
    own: Probe,
    champion: Probe | None,
    challenger: Probe | None,
    bounds: Promotion,
    calibration: Threshold | None = None,
    learnt: Novelty | None = None,
) -> list[Finding]:
    """Return one finding per check, in the order of `CHECKS`.

    Args:
        own: scores of the new detector on images of its own choice.
        champion: scores of the champion on its probe images; None if there is no champion.
        challenger: scores of the new detector on the champion's probe images.
        bounds: the limits.
        calibration: threshold of the new detector; None if it has no threshold.
        learnt: images that the new detector learnt and the champion did not; None if there is no champion, or its list
            of images is lost.
    """
    compared = challenger or own
    enough = len(compared.kept) >= ENOUGH  # the champion's probe images may be gone
    return [
        finite_scores([own, compared]),
        spread(values((compared if enough else own).kept), bounds.min_spread),
        threshold(calibration, own, bounds.threshold_slack),
        separation(own, champion, challenger, bounds),
        agreement(challenger, champion, bounds.min_agreement),
        labelled(own, champion, challenger, bounds),
        kept_share(own.kept_share, champion.kept_share if champion else None, bounds),
        alarms(learnt, bounds.max_alarms),
        shift(learnt, bounds),
    ]


def finite_scores(probes: Sequence[Probe]) -> Finding:
    """Check that every score is finite, and that there are scores."""
    scores = np.concatenate([values(group) for one in probes for group in (one.kept, one.rejected, one.labelled)])
    bad = int((~np.isfinite(scores)).sum())
    return Finding("finite_scores", bad == 0 and len(scores) > 0, f"{bad} of {len(scores)} not finite", "0 of some")


def spread(scores: np.ndarray, least: float) -> Finding:
    """Check that scores of normal images differ: 5th to 95th percentile, relative to the size of the median."""
    if not np.isfinite(scores).all() or not len(scores):
        return Finding("spread", False, "no finite scores", f"at least {least:g}")
    low, middle, high = np.percentile(scores, (5, 50, 95))
    found = float((high - low) / max(abs(middle), 1e-12))
    return Finding("spread", found >= least, f"{found:.4f} over {len(scores)} images", f"at least {least:g}")


def threshold(calibration: Threshold | None, own: Probe, slack: float) -> Finding:
    """Check that the threshold, calibrated on detectors of parts of the images, fits the final detector.

    The threshold must not be too low: the share of learnt images above it may be at most the calibration's upper bound
    for unseen normal images. It must not be too high either: it has to lie within reach of the highest score of an
    unseen image, if there are enough unseen images. Scores of learnt images cannot show that a threshold is too high,
    because a detector that knows its few images by heart gives them scores near 0.

    Args:
        calibration: threshold of the new detector; None if it has no threshold.
        own: scores of the new detector on images of its own choice.
        slack: reach above the highest score of an unseen image, in distances from there to the median of learnt images.
    """
    if calibration is None:
        return Finding("threshold", True, "the model has none", "none, or a sane one")
    value, learnt = calibration.value, values(own.kept)
    unseen = np.concatenate([values(own.rejected), values(own.labelled)])
    share = float((learnt > value).mean()) if np.isfinite(learnt).all() and len(learnt) else 1.0
    passed = share <= calibration.fpr_high
    observed, expected = f"{value:.4f}, above it {share:.1%} of what was learnt", f"at most {calibration.fpr_high:.1%}"
    if len(unseen) >= ENOUGH and np.isfinite(unseen).all():
        highest, middle = float(unseen.max()), float(np.median(learnt))
        limit = highest + slack * max(0.0, highest - middle)
        passed, expected = passed and value <= limit, f"{expected}, and a threshold of at most {limit:.4f}"
    return Finding("threshold", passed and bool(np.isfinite(value)), observed, expected)


def separation(own: Probe, champion: Probe | None, challenger: Probe | None, bounds: Promotion) -> Finding:
    """Check the AUROC of rejected against kept images: the detector must still see what stage 1 found suspicious.

    The images are the champion's probe images, or the new detector's own if the champion's are too few.
    """
    found = _auroc(challenger.kept, challenger.rejected) if challenger else None
    if found is None:
        found = _auroc(own.kept, own.rejected)
    if found is None:
        few = min(len(own.kept), len(own.rejected))
        return Finding("separation", True, f"not comparable: {few} images", f"at least {ENOUGH} kept and rejected")
    least, before = bounds.min_separation, _auroc(champion.kept, champion.rejected) if champion else None
    expected = f"at least {least:.3f}"
    if before is not None:
        least = max(least, before - bounds.max_separation_loss)
        expected = f"at least {least:.3f} (champion {before:.3f})"
    return Finding("separation", found >= least, f"AUROC {found:.3f}", expected)


def agreement(challenger: Probe | None, champion: Probe | None, least: float) -> Finding:
    """Check Spearman's rank correlation with the champion over the champion's kept probe images."""
    from scipy.stats import spearmanr

    if challenger is None or champion is None:
        return Finding("agreement", True, "there is no champion", f"at least {least:g}")
    ids = sorted(champion.kept)
    if len(ids) < ENOUGH:
        return Finding("agreement", True, f"not comparable: {len(ids)} images", f"at least {ENOUGH} images")
    both = values(challenger.kept, ids), values(champion.kept, ids)
    constant = any(np.ptp(scores) == 0 for scores in both)  # constant scores have no ranks and count as no agreement
    found = 0.0 if constant else float(spearmanr(*both).statistic)
    return Finding("agreement", found >= least, f"{found:.3f} over {len(ids)} images", f"at least {least:g}")


def labelled(own: Probe, champion: Probe | None, challenger: Probe | None, bounds: Promotion) -> Finding:
    """Check the AUROC on labelled test images: it must not be much below the champion's on the same images.

    The images are the champion's probe images, or the new detector's own if the champion's are too few.
    """
    probe = challenger if challenger and _labelled_auroc(challenger) is not None else own
    found = _labelled_auroc(probe)
    if found is None:
        return Finding("labelled", True, "too few labels", f"at least {ENOUGH} normal and anomalous images")
    least, before = bounds.min_auroc, _labelled_auroc(champion) if champion else None
    expected = f"at least {least:.3f}"
    if before is not None:
        least = max(least, before - bounds.max_auroc_loss)
        expected = f"at least {least:.3f} (champion {before:.3f})"
    return Finding("labelled", found >= least, f"AUROC {found:.3f} over {len(probe.labelled)} images", expected)


def kept_share(share: float, champion: float | None, bounds: Promotion) -> Finding:
    """Check that purification kept enough images, and about the same share of them as for the champion."""
    low, high = bounds.min_kept_share, 1.0
    if champion is not None:
        low, high = max(low, champion - bounds.max_kept_change), min(high, champion + bounds.max_kept_change)
    return Finding("kept_share", low <= share <= high, f"{share:.3f}", f"from {low:.3f} to {high:.3f}")


def alarms(learnt: Novelty | None, most: float) -> Finding:
    """Check that the champion calls few of the newly learnt images defects, or no more than chance explains."""
    expected = f"at most {most:.0%}"
    if learnt is None or learnt.alarms is None:
        return Finding("alarms", True, _not_comparable(learnt), expected)
    share = learnt.alarms / learnt.count
    passed = share <= most or learnt.by_chance > CHANCE
    observed = (
        f"of {learnt.count} images newly learnt as normal the champion calls {learnt.alarms} ({share:.0%}) defects"
    )
    return Finding("alarms", passed, observed, expected if passed else f"{expected}; {PEOPLE}")


def shift(learnt: Novelty | None, bounds: Promotion) -> Finding:
    """Check that the newly learnt images look like the champion's own. Drift below the limits does not refuse."""
    expected = f"at most {bounds.max_image_shift:g} standard deviations, features {bounds.max_feature_shift:g}"
    if learnt is None or learnt.drift is None:
        return Finding("shift", True, _not_comparable(learnt), expected)
    limits = {one.name: bounds.max_image_shift for one in learnt.drift.statistics}
    limits["features"] = bounds.max_feature_shift
    far = [one for one in learnt.drift.statistics if one.drifted and one.effect > limits[one.name]]
    if not far:
        largest = ", ".join(f"{one.name} {one.effect:.2f}" for one in learnt.drift.statistics)
        return Finding("shift", True, f"{learnt.count} newly learnt images: {largest}", expected)
    found = ", ".join(f"{one.name} by {one.effect:.2f} ({one.reference:.3g} → {one.batch:.3g})" for one in far)
    observed = f"{learnt.count} images newly learnt as normal differ from those the champion learnt: {found}"
    return Finding("shift", False, observed, f"{expected}; {PEOPLE}")


def _not_comparable(learnt: Novelty | None) -> str:
    if learnt is None:
        return "there is no champion, or it does not say what it learnt"
    return f"not comparable: {learnt.count} images newly learnt"


def values(scores: Mapping[str, float], ids: Sequence[str] | None = None) -> np.ndarray:
    """Return the scores (N,) float64 in the order of `ids`, or of all images, sorted by id, if `ids` is None."""
    return np.array([scores[image_id] for image_id in (sorted(scores) if ids is None else ids)], np.float64)


def _auroc(normal: Mapping[str, float], anomalous: Mapping[str, float]) -> float | None:
    if min(len(normal), len(anomalous)) < ENOUGH:
        return None
    both = values(normal), values(anomalous)
    if not all(np.isfinite(part).all() for part in both):
        return 0.0
    found = ranking(*both)
    return found.auroc if found else None


def _labelled_auroc(probe: Probe) -> float | None:
    groups = [{i: s for i, s in probe.labelled.items() if probe.anomalous[i] is kind} for kind in (False, True)]
    return _auroc(*groups)
