"""Look at a data set without training: what was read, what was left out, and what a person should decide.

A finding needs a decision if training goes on with something else than the folder seems to say: a broken file, the same
picture in train and test, a mask without its image. What is left out on purpose (hidden and system files, held-out
folders) is a finding, too, but needs none.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from llbnad.data.manifest import NORMAL, is_anomalous
from llbnad.data.masks import ASPECT, split_masks
from llbnad.data.sources import Scan

# reasons that a person has decided already, or that change nothing
SETTLED = frozenset({"held_out", "hidden", "mask_unused", "other_file", "overlay", "system_folder", "uncertain"})
SHOWN, VALUES = 3, 12  # examples of a reason; labels or sizes in a line
MEANING = "taken_for"  # reason of the rows that say what a folder or a label was taken for
COLUMNS = ["path", "reason", "detail", "needs_decision"]


@dataclass(frozen=True)
class Report:
    """The report on a data set: lines to print, and a table of findings."""

    lines: tuple[str, ...]
    findings: pd.DataFrame  # columns COLUMNS; one row per file left out, per doubt, and per folder or label that counts

    @property
    def needs_decision(self) -> bool:
        """Whether a finding needs a decision."""
        return bool(self.findings["needs_decision"].any())


def inspect(scan: Scan) -> Report:
    """Return the report on a data set that was read (`llbnad.data.sources.read_source`)."""
    doubts = [*scan.doubts, *_doubts(scan.manifest)]
    left_out = scan.rejected.assign(needs_decision=~scan.rejected["reason"].isin(SETTLED).astype(bool))
    told = pd.DataFrame([("", "doubt", line, True) for line in doubts], columns=COLUMNS)
    taken = scan.folders["images"].astype(str) + " images, " + scan.folders["meaning"]
    meant = scan.folders.assign(path=scan.folders["place"], reason=MEANING, detail=taken, needs_decision=False)
    found = [frame[COLUMNS] for frame in (left_out, told, meant) if len(frame)]
    findings = pd.concat(found or [told], ignore_index=True)
    lines = [*_facts(scan), *_left_out(left_out), *(f"in doubt: {line}" for line in doubts)]
    open_ones = int(findings["needs_decision"].sum())
    lines.append(f"{open_ones} findings need a decision" if open_ones else "nothing needs a decision")
    return Report(tuple(lines), findings[COLUMNS])


def _facts(scan: Scan) -> Iterator[str]:
    manifest = scan.manifest
    yield f"{len(manifest)} images, {manifest['sample_id'].nunique()} items; {len(scan.rejected)} files are left out"
    yield from (*scan.notes, *scan.pixel_notes)
    labels = manifest["anomaly_class"].fillna("unlabelled").replace(NORMAL, "normal")
    yield f"labels: {_counted(labels)}"
    yield f"splits: {_counted(manifest['split'].fillna('none'))}"
    masked = manifest["mask_path"].notna()
    files = sum(len(split_masks(cell)) for cell in manifest["mask_path"])
    yield f"masks: {int(masked.sum())} images have one, from {files} files"
    yield f"sizes: {_counted(manifest['width'].astype(str) + ' × ' + manifest['height'].astype(str))}"


def _left_out(left_out: pd.DataFrame) -> Iterator[str]:
    """Yield one line per reason, with its first files; those that need a decision come first."""
    ordered = left_out.sort_values(["needs_decision", "reason", "path"], ascending=[False, True, True])
    for reason, rows in ordered.groupby("reason", sort=False):
        shown = [f"{row['path']} ({row['detail']})" for row in rows.head(SHOWN).to_dict("records")]
        more = [f"and {len(rows) - SHOWN} more"] if len(rows) > SHOWN else []
        yield f"left out: {len(rows)} {reason}: {', '.join([*shown, *more])}"


def _doubts(manifest: pd.DataFrame) -> Iterator[str]:
    ratios = manifest["width"] / manifest["height"]
    usual = manifest[ratios.round(2) == ratios.round(2).mode().iloc[0]].iloc[0]
    odd = manifest["path"][(ratios * usual["height"] / usual["width"] - 1).abs() > ASPECT]
    if len(odd):
        size = f"{usual['width']} × {usual['height']}"
        yield (
            f"{len(odd)} images have another aspect ratio than most ({size}), and each is squeezed to a square: "
            f"{', '.join(sorted(odd)[:SHOWN])}"
        )
    anomalous = is_anomalous(manifest).fillna(False).astype(bool)
    bare = manifest["path"][anomalous & manifest["mask_path"].isna()]
    if len(bare) and manifest["mask_path"].notna().any():
        yield f"{len(bare)} of {int(anomalous.sum())} defects have no mask: {', '.join(sorted(bare)[:SHOWN])}"
    tested = manifest[manifest["split"] == "test"]
    labelled = tested["anomaly_class"].dropna()
    if len(labelled) and (labelled == NORMAL).nunique() == 1:
        yield f"the test images are all {'normal' if (labelled == NORMAL).all() else 'defects'}: no metric can be given"
    if len(labelled) and len(labelled) < len(tested):
        yield f"{len(tested) - len(labelled)} of {len(tested)} test images have no label, and count in no metric"


def _counted(values: pd.Series) -> str:
    """Return the values with their counts, the most frequent first."""
    found = sorted(Counter(values).items(), key=lambda one: (-one[1], one[0]))
    more = [f"and {len(found) - VALUES} more"] if len(found) > VALUES else []
    return ", ".join([*(f"{value} ({count})" for value, count in found[:VALUES]), *more])
