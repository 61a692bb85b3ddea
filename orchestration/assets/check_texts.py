"""Texts of the asset checks in the UI: what each protects against, and what to do when it fails."""

import warnings

import dagster as dg

from orchestration.pipeline.pipes import CONTROL_CHART, DRIFT, PARITY
from orchestration.registry.shown import REMEDIES, REVIEW

JOINED = "The list of checks joins all scenarios, and below is the one that ran last: the tab Partitions has each."
TEXTS = {
    "manifest": "Images that cannot be learnt from: an id that is no content hash, a double, a label of no known kind. "
    "If it fails: the stage's report names the rule and the first rows; correct the data set.",
    "noisy": "Numbers that mean nothing: a sample in both training and test, or another contamination than injected. "
    "If it fails: correct `noise` of the scenario, or the data set's splits.",
    "purified": "A selection that lost images: each training image is kept, rejected or excluded by people, once. "
    "If it fails: correct the review file that the report names.",
    DRIFT: "A line that no longer shows what the detector learnt: another lamp, lens or product. "
    "If it warns: look at the newest batch before it is learnt as normal.",
    CONTROL_CHART: "A share of defects, or of unsure images, that chance does not explain: the product has changed, or "
    "its picture. If it warns: look at the newest pictures in data/inspected.",
    PARITY: "An exported graph that scores otherwise than the model. "
    "If it fails: do not ship the graph; say which runtime and version made it.",
    "finite_scores": "A broken model: a score that is no finite number. If it fails: train again with other settings.",
    "spread": "A collapsed detector, which gives all images the same score. "
    "If it fails: raise the memory or dimensions of the detector.",
    "threshold": "A threshold inside the scores of normal images, one that a kept defect has set too high, or one with "
    "more false positives on labelled images than it promises. "
    f"If it fails: {REMEDIES['threshold']}; or call what stands apart a defect in the review file.",
    "verdicts": "A detector that calls normal what people called a defect, or the reverse. "
    "If it fails: the finding names the images; correct a verdict, or keep the champion.",
    "separation": f"A detector that no longer tells the kept images from the others. If it fails: {REVIEW}.",
    "agreement": "A detector that ranks normal images quite otherwise than the champion. "
    "If it fails: look at the images on which they differ most.",
    "labelled": "A detector that ranks labelled test images badly, or worse than the champion does. "
    f"If it fails: keep the champion if there is one; {REMEDIES['labelled']}.",
    "sensitivity": "A detector that is blind to synthetic defects that the champion finds. "
    f"If it fails: defects were probably learnt as normal; {REVIEW}.",
    "kept_share": "Another share of images kept than before: other data, or a purification that went wrong. "
    f"If it fails: {REMEDIES['kept_share']}.",
    "alarms": "Defects about to be learnt as normal: the champion calls many of the newly learnt images defects. "
    f"The challenger's table newly_learnt_alarms names them. If it fails: {REVIEW}.",
    "shift": "Another lamp, camera or product about to be learnt as normal: the newly learnt images differ. "
    "If it fails: mend the line, or call these images normal in the review file.",
    "standing": "A version that people rolled back and that a schedule would promote again. "
    "If it fails: promote it by hand if it is good after all.",
}


def check_spec(
    name: str, asset: str, partitions: dg.PartitionsDefinition | None, blocking: bool = False
) -> dg.AssetCheckSpec:
    """Return the specification of a check with its text, partitioned like its asset.

    Raises:
        KeyError: the check has no text.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)  # of partitions; the release is pinned, and tests use them
        text = f"Guards against: {TEXTS[name][:1].lower()}{TEXTS[name][1:]}"  # beside a green tick
        text += "" if partitions is None else f" {JOINED}"
        return dg.AssetCheckSpec(name, asset=asset, blocking=blocking, description=text, partitions_def=partitions)
