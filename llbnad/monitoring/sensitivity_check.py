"""The check that a new detector is not blind to what the champion saw: both look at the same synthetic defects.

Defects are drawn on normal test images where there are enough of them. Elsewhere, as on a production line, no image is
left that neither detector has learnt, so they are drawn on images that both have learnt: there the detection rate is no
estimate of anything, but neither detector has an advantage, and the check only compares.

Chance must not refuse. Another draw of calibration images moves a threshold, and with it every image at once. The
champion has therefore found a defect only if its score is above the interval of the threshold, where the label is
`defect` and not `unsure`; it is lost if the new detector's score is not even above its threshold. Gains are counted
likewise and subtracted. The net loss is a share of what the champion found, so a weak champion is no excuse. A kind
refuses if its net loss exceeds the limit L beyond chance: the mean over images of (lost - gained - L · found before) is
above 0 with its whole 99 % interval (Student's t; one image is one observation, since the drawings on one image are no
independent ones). It is 99 %, not 95 %, since each kind has its own.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from llbnad.config import Promotion
from llbnad.data.manifest import NORMAL
from llbnad.inference.predict import Predictor
from llbnad.model.threshold import Threshold
from llbnad.monitoring.finding import Finding, decided, skipped
from llbnad.monitoring.novelty import FEWEST_IMAGES
from llbnad.sensitivity.measure import drawings, score_drawings, usual_sizes
from llbnad.sensitivity.rates import CLEAN
from llbnad.utils.hashing import stable_shuffle

NAME = "sensitivity"
CONFIDENCE = 0.99
CONTRASTS = (0.2,)
PASSED, FOUND = 0, 2  # answers; 1 is a find within the interval of the threshold
NO_CHAMPION = "there is no champion"
UNREADABLE = "the champion cannot be loaded, or does not say what it learnt"
FEW = "{} normal images that both or neither have learnt, and that the champion passes, are too few"
REMEDY = (
    "`llbnad sensitivity MODEL FOLDER_OF_NORMAL_IMAGES --out FOLDER` draws what a model finds, in "
    "FOLDER/synthetic_defects.png; or promote by hand"
)


@dataclass(frozen=True)
class Compared:
    """Answers of two detectors to the same drawings."""

    table: pd.DataFrame  # image_id, kind, size, and the answers `before` (the champion's) and `now`: see `answers`
    images: int


def common_images(noisy: pd.DataFrame, learnt_now: Collection[str], learnt_before: Collection[str]) -> pd.DataFrame:
    """Return the images to draw on: normal ones set aside for testing, or, if they are too few, those that both learnt.

    Args:
        noisy: manifest of the line.
        learnt_now: ids of the images that the new detector learnt.
        learnt_before: ids of those that the champion learnt.
    """
    tested = noisy[(noisy["split"] == "test") & (noisy["anomaly_class"] == NORMAL)]
    if len(tested) >= FEWEST_IMAGES:
        return tested
    return noisy[noisy["image_id"].isin(set(learnt_now) & set(learnt_before))]


def compare(model: Predictor, champion: Predictor, pool: pd.DataFrame, image_root: Path, count: int) -> Compared | str:
    """Draw the same defects on the same images for both detectors.

    The new detector's threshold is that for the champion's rate of false positives: a rate that somebody lowered makes
    no detector blind. Defects are drawn in the new detector's region of interest: what somebody left out of it is not
    lost.

    Args:
        model: the new detector.
        champion: the detector in use.
        pool: manifest rows of normal images that both have learnt, or neither (`common_images`).
        image_root: folder that the manifest's paths are relative to.
        count: most images to draw on.

    Returns:
        the comparison, or why there is none: the check is turned off, a detector has no threshold, or there are fewer
        than `FEWEST_IMAGES` images. An image that the champion does not pass as it is does not count.
    """
    new, old = model.model, champion.model
    if not count:
        return "promotion.sensitivity_images is 0"
    if new.threshold is None or old.threshold is None:
        return f"the {'model' if new.threshold is None else 'champion'} has no threshold, so it finds nothing"
    ids = sorted(stable_shuffle(pool["image_id"], 0, NAME)[:count])
    if len(ids) < FEWEST_IMAGES:
        return FEW.format(len(ids))
    rows = pool.set_index("image_id").loc[ids]
    images = {image_id: image_root / path for image_id, path in zip(ids, rows["path"], strict=True)}
    sizes = usual_sizes(rows[["width", "height"]].min(axis=1).astype(int).tolist())
    wanted = drawings(sizes[1:] or sizes, CONTRASTS)  # the smallest is below what detectors find
    before = score_drawings(champion, images, wanted, region=new.region)
    same_region = new.region is old.region or (new.region is not None and new.region.equals(old.region))
    same = new.digest() == old.digest() and new.encoder == old.encoder and same_region
    now = before if same else score_drawings(model, images, wanted, region=new.region)
    rate = old.threshold.target_fpr
    at_its_rate = new.threshold if new.threshold.target_fpr == rate else new.threshold.at(rate)
    table = before[["image_id", "kind", "size"]].assign(
        before=answers(before["score"].to_numpy(), old.threshold), now=answers(now["score"].to_numpy(), at_its_rate)
    )
    alarmed = table["image_id"][(table["kind"] == CLEAN) & (before["score"] > old.threshold.value)]
    table = table[~table["image_id"].isin(alarmed) & (table["kind"] != CLEAN)].reset_index(drop=True)
    left = len(ids) - len(alarmed)
    return Compared(table, left) if left >= FEWEST_IMAGES else FEW.format(left)


def answers(scores: np.ndarray, threshold: Threshold) -> np.ndarray:
    """Return an answer per score (N,): 2 (`FOUND`) above the threshold's interval, 1 above the threshold, else 0."""
    return (scores > threshold.unsure_high).astype(int) + (scores > threshold.value).astype(int)


def sensitivity(compared: Compared | str, bounds: Promotion) -> Finding:
    """Check that the new detector loses no kind of defect that the champion finds.

    Args:
        compared: what both make of the same drawings, or why that could not be measured.
        bounds: the limits.
    """
    expected = (
        f"at most {bounds.max_sensitivity_loss:.0%} of the synthetic defects that the champion finds lost, per kind"
    )
    if isinstance(compared, str):
        return skipped(NAME, compared, expected)
    parts, refused = [], False
    for kind, rows in compared.table.groupby("kind", sort=False):
        blind = beyond_chance(rows, bounds.max_sensitivity_loss)
        refused |= blind
        saw, sees = ((rows[name] == FOUND).mean() for name in ("before", "now"))
        loss = net_loss(rows)
        change = f"lost {loss:.0%} of these" if loss > 0 else "lost none"
        parts.append(f"{kind} {sees:.0%} (champion {saw:.0%}, {change}{', BLIND' if blind else ''})")
    observed = f"found on {compared.images} images: {', '.join(parts)}"
    return decided(NAME, not refused, observed, f"{expected}; {REMEDY}" if refused else expected)


def net_loss(rows: pd.DataFrame) -> float:
    """Return the drawings lost less those gained, as a share of what the champion found; 0 if it found none.

    Args:
        rows: rows of `Compared.table`.
    """
    lost, found = _by_image(rows)
    return float(lost.sum() / found.sum()) if found.sum() else 0.0


def beyond_chance(rows: pd.DataFrame, most: float) -> bool:
    """Return whether the net loss exceeds `most` with its whole interval over images."""
    from scipy.stats import t

    lost, found = _by_image(rows)
    above = lost - most * found  # (images,) drawings
    reach = t.ppf((1 + CONFIDENCE) / 2, len(above) - 1) * above.std(ddof=1) / np.sqrt(len(above))
    return bool(above.mean() > reach)


def _by_image(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return the net loss and the champion's finds of each image: (images,) float64 each."""
    lost = ((rows["before"] == FOUND) & (rows["now"] == PASSED)).astype(float)
    gained = ((rows["before"] == PASSED) & (rows["now"] == FOUND)).astype(float)
    found = (rows["before"] == FOUND).astype(float)
    net, all_found = (part.groupby(rows["image_id"]).sum().to_numpy() for part in (lost - gained, found))
    return net, all_found
