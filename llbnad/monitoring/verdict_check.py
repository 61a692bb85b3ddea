"""The check that a new detector decides as people did on the images that they judged, however few these are.

An image that a person called a defect is not learnt, so the detector's decision on it is a test. If it was learnt all
the same, because the verdict is younger than the detector, calling it normal is no less wrong. An image that a person
called normal is learnt, so its score proves nothing; it counts only where the detector did not learn it.

A detector that misses defects is still the better one if the champion misses all of these and more. Refusing it would
leave the line with the worse of the two.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from llbnad.config import Promotion
from llbnad.data.names import listed
from llbnad.features.source import FeatureSource
from llbnad.model.model import Model
from llbnad.model.threshold import CHANCE, Threshold
from llbnad.monitoring.finding import Finding, decided, skipped
from llbnad.monitoring.probe import score_images

NAME = "verdicts"
NAMED = 10  # images named in a finding
REMEDY = (
    "correct the review file and run the pipeline again, raise calibration.target_fpr to find fainter defects, "
    "or promote by hand"
)


@dataclass(frozen=True)
class Judged:
    """The images that people judged and that are a test of a detector: its scores by the names of the images."""

    defects: Mapping[str, float]
    normals: Mapping[str, float]  # images that the detector did not learn
    n_learnt: int = 0  # images called normal that the detector learnt; they are no test
    missed_before: frozenset[str] = frozenset()  # defects that the champion calls normal; empty if there is no champion


def judged_images(
    model: Model,
    features: FeatureSource,
    verdicts: Mapping[str, str],
    learnt: Collection[str],
    names: Mapping[str, str],
    champion: Model | None = None,
) -> Judged:
    """Score the images that people judged.

    Args:
        model: the new detector.
        features: features of all images of the line.
        verdicts: people's verdicts by image id; those on images without a name are left out.
        learnt: ids of the images that the detector learnt.
        names: name of each image of the line, by id.
        champion: the detector in use; None if there is none, or it works on other features.
    """
    said = {
        kind: [image_id for image_id, verdict in verdicts.items() if verdict == kind and image_id in names]
        for kind in ("defect", "normal")
    }
    unseen = [image_id for image_id in said["normal"] if image_id not in set(learnt)]
    scores = score_images(model, features, [*said["defect"], *unseen])
    missed_before: set[str] = set()
    if champion is not None and champion.threshold is not None:
        before = score_images(champion, features, said["defect"])
        missed_before = _missed({names[image_id]: score for image_id, score in before.items()}, champion.threshold)
    return Judged(
        {names[image_id]: scores[image_id] for image_id in said["defect"]},
        {names[image_id]: scores[image_id] for image_id in unseen},
        len(said["normal"]) - len(unseen),
        frozenset(missed_before),
    )


def verdicts(judged: Judged | None, calibration: Threshold | None, bounds: Promotion) -> Finding:
    """Check that the detector finds what people called defects, and calls normal what they called normal.

    One missed defect refuses, unless `bounds.max_missed` allows it, or the champion misses the same defects and more.
    False alarms refuse if they are more than the calibration's rate explains.

    Args:
        judged: the images that people judged; None if there are none.
        calibration: threshold of the new detector; None if it has no threshold.
        bounds: the limits.
    """
    expected = f"at most {bounds.max_missed:.0%} of people's defects called normal, no more false alarms than stated"
    if judged is None or not (judged.defects or judged.normals or judged.n_learnt):
        return skipped(NAME, "nobody has judged an image of this line", expected)
    if calibration is None:
        return skipped(NAME, "the model has no threshold, so it decides nothing", expected)
    if not (judged.defects or judged.normals):
        return skipped(NAME, f"the detector learnt all {judged.n_learnt} images that people called normal", expected)
    missed = _missed(judged.defects, calibration)
    raised = {name for name, score in judged.normals.items() if score > calibration.value}
    chance = calibration.chance_of_alarms(len(raised), len(judged.normals))
    observed, better = [], False
    if judged.defects:
        observed.append(f"calls {len(missed)} of {len(judged.defects)} images normal that people called defects")
        observed[-1] += f" ({listed(sorted(missed), NAMED)})" if missed else ""
        better = missed < judged.missed_before
        if missed and better:
            observed[-1] += f", the champion {len(judged.missed_before)}, these among them"
    if judged.normals:
        observed.append(f"calls {len(raised)} of {len(judged.normals)} images defects that people called normal")
        observed[-1] += f" ({listed(sorted(raised), NAMED)})" if raised else ""
    passed = (better or len(missed) <= bounds.max_missed * len(judged.defects)) and chance > CHANCE
    return decided(NAME, passed, "; ".join(observed), expected if passed else f"{expected}; {REMEDY}")


def _missed(defects: Mapping[str, float], calibration: Threshold) -> set[str]:
    # not above, so that a score that is no number counts as missed
    return {name for name, score in defects.items() if not score > calibration.value}
