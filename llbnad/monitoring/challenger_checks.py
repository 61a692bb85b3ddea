"""The checks that a new detector must pass to follow the detector in use, the champion.

The checks are plain arithmetic on scores of the same probe images. They need no labels, but use the labels that exist.
Every finding says what was observed and what was expected. A comparison that cannot be made, because there is no
champion or there are too few images, is skipped: it neither refuses the detector nor speaks for it.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from llbnad.config import Promotion
from llbnad.data.names import listed, shown_name
from llbnad.evaluation.metrics import ranking
from llbnad.model.threshold import CHANCE, Threshold
from llbnad.monitoring.finding import Finding, decided, skipped
from llbnad.monitoring.novelty import FEWEST_IMAGES, Novelty
from llbnad.monitoring.probe import Probe, values
from llbnad.monitoring.sensitivity_check import NO_CHAMPION, Compared, sensitivity
from llbnad.monitoring.threshold_check import threshold
from llbnad.monitoring.verdict_check import Judged, verdicts

CHECKS = (
    "finite_scores", "spread", "threshold", "verdicts", "separation", "agreement", "labelled", "sensitivity",
    "kept_share", "alarms", "shift",
)  # fmt: skip
UNPROVEN = "nothing to compare with: look at the suspects before you trust it"  # said of a line's first detector
NOTHING_REJECTED = 0.995  # a kept share from which on a champion has purified nothing
NAMED = 3  # images named in a finding; the review page has them all
MARKED = "the review page has them under `why here`"
PEOPLE = "to accept them, call them normal in the review file, or promote by hand"


def judge(
    own: Probe,
    champion: Probe | None,
    challenger: Probe | None,
    bounds: Promotion,
    calibration: Threshold | None = None,
    learnt: Novelty | None = None,
    judged: Judged | None = None,
    drawn: Compared | str = NO_CHAMPION,
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
        judged: images that people judged, as the new detector sees them; None if there are none.
        drawn: what both detectors make of synthetic defects, or why that is not known.
    """
    compared = challenger or own
    enough = len(compared.kept) >= FEWEST_IMAGES  # the champion's probe images may be gone
    return [
        finite_scores([own, compared]),
        spread(values((compared if enough else own).kept), bounds.min_spread),
        threshold(calibration, own, bounds),
        verdicts(judged, calibration, bounds),
        separation(own, champion, challenger, bounds),
        agreement(challenger, champion, bounds.min_agreement),
        labelled(own, champion, challenger, bounds),
        sensitivity(drawn, bounds),
        kept_share(own, champion, bounds),
        alarms(learnt, bounds.max_alarms),
        shift(learnt, bounds),
    ]


def finite_scores(probes: Sequence[Probe]) -> Finding:
    """Check that every score is finite, and that there are scores."""
    scores = np.concatenate([values(group) for one in probes for group in (one.kept, one.rejected, one.labelled)])
    bad = int((~np.isfinite(scores)).sum())
    passed = bad == 0 and len(scores) > 0
    return decided("finite_scores", passed, f"{bad} of {len(scores)} not finite", "none, and at least one score")


def spread(scores: np.ndarray, least: float) -> Finding:
    """Check that scores of normal images differ: 5th to 95th percentile, relative to the size of the median."""
    if not np.isfinite(scores).all() or not len(scores):
        return decided("spread", False, "no finite scores", f"at least {least:g}")
    low, middle, high = np.percentile(scores, (5, 50, 95))
    found = float((high - low) / max(abs(middle), 1e-12))
    return decided("spread", found >= least, f"{found:.4f} over {len(scores)} images", f"at least {least:g}")


def separation(own: Probe, champion: Probe | None, challenger: Probe | None, bounds: Promotion) -> Finding:
    """Check the AUROC of images not kept against kept ones: the detector must still see what stage 1 found suspicious.

    The images are the champion's probe images, or the new detector's own if the champion's are too few.
    """
    found = _auroc(challenger.kept, challenger.rejected) if challenger else None
    if found is None:
        found = _auroc(own.kept, own.rejected)
    if found is None:
        few = min(len(own.kept), len(own.rejected))
        expected = f"at least {FEWEST_IMAGES} images kept and not kept"
        return skipped("separation", f"{few} images are too few to compare", expected)
    least, before = bounds.min_separation, _auroc(champion.kept, champion.rejected) if champion else None
    expected = f"at least {least:.3f}"
    if before is not None:
        least = max(least, before - bounds.max_separation_loss)
        expected = f"at least {least:.3f} (champion {before:.3f})"
    return decided("separation", found >= least, f"AUROC {found:.3f} of images not kept against kept ones", expected)


def agreement(challenger: Probe | None, champion: Probe | None, least: float) -> Finding:
    """Check Spearman's rank correlation with the champion over the champion's kept probe images.

    It is too low if its whole 95 % interval is. A few images say little about it.
    """
    from scipy.stats import spearmanr

    if challenger is None or champion is None:
        return skipped("agreement", "there is no champion", f"at least {least:g}")
    ids = sorted(champion.kept)
    if len(ids) < FEWEST_IMAGES:
        return skipped("agreement", f"{len(ids)} images are too few to compare", f"at least {FEWEST_IMAGES} images")
    both = values(challenger.kept, ids), values(champion.kept, ids)
    constant = any(np.ptp(scores) == 0 for scores in both)  # constant scores have no ranks and count as no agreement
    found = 0.0 if constant else float(spearmanr(*both).statistic)
    high = 0.0 if constant else _highest_correlation(found, len(ids))
    observed = f"{found:.3f} over {len(ids)} images, at most {high:.3f} at 95 % confidence"
    return decided("agreement", high >= least, observed, f"at least {least:g}")


def _highest_correlation(found: float, count: int) -> float:
    """Return the upper end of the 95 % interval of Spearman's correlation (Fisher's transformation).

    The variance is that of Bonett and Wright (Psychometrika 65, 2000).
    """
    if abs(found) >= 1:
        return found
    return float(np.tanh(np.arctanh(found) + 1.96 * np.sqrt((1 + found**2 / 2) / (count - 3))))


def labelled(own: Probe, champion: Probe | None, challenger: Probe | None, bounds: Promotion) -> Finding:
    """Check the AUROC on labelled test images: it must not be much below the champion's on the same images.

    Only images that are set aside for testing count: neither detector has learnt one of them. They are the champion's
    probe images, or the new detector's own if the champion's are too few.
    """
    probe = challenger if challenger and _labelled_auroc(challenger) is not None else own
    found = _labelled_auroc(probe)
    if found is None:
        few = f"{len(probe.labelled)} labelled images are set aside for testing"
        return skipped("labelled", few, f"at least {FEWEST_IMAGES} normal and anomalous images")
    least, before = bounds.min_auroc, _labelled_auroc(champion) if champion else None
    expected = f"at least {least:.3f}"
    if before is not None:
        least = max(least, before - bounds.max_auroc_loss)
        expected = f"at least {least:.3f} (champion {before:.3f})"
    observed = f"AUROC {found:.3f} over the probe, {len(probe.labelled)} of the labelled test images"
    return decided("labelled", found >= least, observed, expected)


def kept_share(own: Probe, champion: Probe | None, bounds: Promotion) -> Finding:
    """Check that purification kept enough images, and about the same share of them as for the champion.

    The champion's share does not bind if the champion had purified nothing, or if people overruled the policy: then a
    better policy must be free to reject more. Nor does one below the least share that is allowed, which a better policy
    must be free to leave.
    """
    share, low, high, note = own.kept_share, bounds.min_kept_share, 1.0, ""
    if champion is not None and champion.kept_share >= NOTHING_REJECTED:
        note = f"; the champion's share of {champion.kept_share:.1%} does not bind: it had purified nothing"
    elif champion is not None and (champion.n_overruled or own.n_overruled):
        note = f"; the champion's share of {champion.kept_share:.1%} does not bind: people overruled the policy"
    elif champion is not None and champion.kept_share < low:
        note = f"; the champion's share of {champion.kept_share:.1%} does not bind: it is below what is allowed"
    elif champion is not None:
        low = max(low, champion.kept_share - bounds.max_kept_change)
        high = min(high, champion.kept_share + bounds.max_kept_change)
    return decided(
        "kept_share", low <= share <= high, f"kept {share:.1%} of the training images{note}", f"{low:.1%} to {high:.1%}"
    )


def alarms(learnt: Novelty | None, most: float) -> Finding:
    """Check that the champion calls few of the newly learnt images defects, or no more than chance explains."""
    expected = f"at most {most:.0%}"
    if learnt is None or learnt.alarms is None:
        return skipped("alarms", _not_comparable(learnt), expected)
    count = len(learnt.alarms)
    share = count / learnt.count
    passed = share <= most or learnt.by_chance > CHANCE
    observed = f"of {learnt.count} images newly learnt as normal the champion calls {count} ({share:.0%}) defects"
    if learnt.alarms:
        observed += f" ({listed([shown_name(one.path) for one in learnt.alarms], NAMED)})"
    return decided("alarms", passed, observed, expected if passed else f"{expected}; {MARKED}; {PEOPLE}")


def shift(learnt: Novelty | None, bounds: Promotion) -> Finding:
    """Check that the newly learnt images look like the champion's own. Drift below the limits does not refuse."""
    expected = f"at most {bounds.max_image_shift:g} standard deviations, features {bounds.max_feature_shift:g}"
    if learnt is None or learnt.drift is None:
        return skipped("shift", _not_comparable(learnt), expected)
    limits = {one.name: bounds.max_image_shift for one in learnt.drift.statistics}
    limits["features"] = bounds.max_feature_shift
    far = [one for one in learnt.drift.statistics if one.drifted and one.effect > limits[one.name]]
    if not far:
        largest = ", ".join(f"{one.name} {one.effect:.2f}" for one in learnt.drift.statistics)
        return decided("shift", True, f"{learnt.count} newly learnt images: {largest}", expected)
    found = ", ".join(f"{one.name} by {one.effect:.2f} ({one.reference:.3g} → {one.batch:.3g})" for one in far)
    observed = f"{learnt.count} images newly learnt as normal differ from those the champion learnt: {found}"
    return decided("shift", False, observed, f"{expected}; {PEOPLE}")


def _not_comparable(learnt: Novelty | None) -> str:
    if learnt is None:
        return "there is no champion, or it does not say what it learnt"
    if learnt.count < FEWEST_IMAGES:
        return f"{learnt.count} newly learnt images are too few to compare"
    return "the champion cannot judge the newly learnt images: it works on other features, or has learnt too few"


def _auroc(normal: Mapping[str, float], anomalous: Mapping[str, float]) -> float | None:
    if min(len(normal), len(anomalous)) < FEWEST_IMAGES:
        return None
    both = values(normal), values(anomalous)
    if not all(np.isfinite(part).all() for part in both):
        return 0.0
    found = ranking(*both)
    return found.auroc if found else None


def _labelled_auroc(probe: Probe) -> float | None:
    groups = [{i: s for i, s in probe.labelled.items() if probe.anomalous[i] is kind} for kind in (False, True)]
    return _auroc(*groups)
