"""One HTML page of suspect images for people to judge; everything is inside the file, nothing is fetched.

Which images: those of the highest consensus score, those nearest to the cut, where a verdict changes most, those kept
on which the sub-models disagree most, and all that were judged before. Near-duplicates, close in feature distance,
stand together, so that a row of alike images is judged at once.
"""

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from llbnad.data.images import load_rgb
from llbnad.evaluation.figures import heat_range, overlay
from llbnad.purification.aggregate import sub_model_columns
from llbnad.purification.purify import Purified
from llbnad.utils.progress import track

TEMPLATE = Path(__file__).with_name("review_page.html")
DATA_MARK = "__REVIEW_DATA__"
PICTURE = 360  # pixels of the longer side
JPEG_QUALITY = 82
NEAR = 0.25  # of the median distance of two images; on solar cells that takes in a picture taken again, 5 % brighter
GRID = 4  # cells a side of the features compared


@dataclass(frozen=True)
class Suspect:
    """One row of the page."""

    image_id: str
    path: str
    score: float
    spread: float  # standard deviation over the sub-models
    status: str  # kept, rejected or excluded, after the verdicts known so far
    reason: str  # why it is on the page
    group: int  # of near-duplicates, from 1; 0 for an image that stands alone
    label: str  # the data set's, empty if there is none
    image: str  # data URI
    heat: str  # data URI: the image under its heat map


def choose_suspects(scores: pd.DataFrame, purified: Purified, verdicts: Mapping[str, str], limit: int) -> pd.Series:
    """Why each image is on the page, by image id.

    Args:
        scores: what `llbnad.purification.aggregate.score_table` gives, with `score`, indexed by image id.
        purified: the verdict on these images.
        verdicts: people's so far; those images are always shown.
        limit: images beside them: half by score, a quarter near the cut, a quarter by disagreement.
    """
    ordered = scores.assign(spread=spread(scores), distance=(scores["score"] - purified.cut).abs()).sort_index()
    kept = ordered[ordered.index.isin(purified.kept)]
    ranked = [
        (ordered.sort_values("score", ascending=False, kind="stable").index, "highest score", limit - limit // 4 * 2),
        (ordered.sort_values("distance", kind="stable").index, "near the cut", limit // 4),
        (kept.sort_values("spread", ascending=False, kind="stable").index, "sub-models disagree", limit // 4),
    ]
    reasons = {image_id: "judged before" for image_id in ordered.index if image_id in verdicts}
    for ids, reason, count in ranked:
        fresh = [image_id for image_id in ids if image_id not in reasons][:count]
        reasons |= dict.fromkeys(fresh, reason)
    return pd.Series(reasons, dtype="object", name="reason")


def spread(scores: pd.DataFrame) -> pd.Series:
    """Standard deviation of each image's score over the sub-models."""
    return scores[sub_model_columns(scores)].astype("float64").std(axis=1, ddof=0)


def near_duplicates(image_ids: list[str], vectors: np.ndarray) -> dict[str, int]:
    """Groups of images linked by steps up to NEAR times the median distance, from 1; 0 for those that stand alone.

    The step follows the images' own spread: parts in a fixed position are all close to each other, yet not doubles.

    Args:
        image_ids: N images.
        vectors: (N, D) of `llbnad.features.image_features`.
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import pdist

    if len(image_ids) < 3:  # there is no typical distance to compare with
        return dict.fromkeys(image_ids, 0)
    distances = pdist(vectors.astype(np.float64))
    clusters = fcluster(linkage(distances, "single"), NEAR * np.median(distances), "distance")
    members: dict[int, list[str]] = {}
    for image_id, cluster in zip(image_ids, clusters, strict=True):
        members.setdefault(int(cluster), []).append(image_id)
    groups = sorted((sorted(ids) for ids in members.values() if len(ids) > 1), key=lambda ids: ids[0])
    numbers = {image_id: number for number, ids in enumerate(groups, start=1) for image_id in ids}
    return {image_id: numbers.get(image_id, 0) for image_id in image_ids}


def build_suspects(
    manifest: pd.DataFrame,
    scores: pd.DataFrame,
    reasons: pd.Series,
    purified: Purified,
    groups: Mapping[str, int],
    heat: Mapping[str, np.ndarray],
    image_root: Path,
) -> list[Suspect]:
    """The rows of the page, most suspicious first, near-duplicates together.

    Args:
        manifest: rows of the training images.
        scores: see `choose_suspects`.
        reasons: what `choose_suspects` gave.
        purified: the verdict.
        groups: what `near_duplicates` gave.
        heat: patch maps by image id.
        image_root: what manifest paths are relative to.
    """
    rows = manifest[manifest["image_id"].isin(reasons.index)].set_index("image_id")
    known = scores.loc[rows.index]
    spreads = spread(known)
    scale = heat_range([heat[image_id] for image_id in sorted(rows.index)])
    status = dict.fromkeys(purified.kept, "kept") | dict.fromkeys(purified.rejected, "rejected")
    suspects = []
    for image_id in track(sorted(rows.index), "pictures"):
        row = rows.loc[image_id]
        image = load_rgb(image_root / row["path"])
        image.thumbnail((PICTURE, PICTURE))
        pixels = np.asarray(image)
        suspects.append(
            Suspect(
                image_id=image_id,
                path=row["path"],
                score=float(known["score"][image_id]),
                spread=float(spreads[image_id]),
                status=status.get(image_id, "excluded"),
                reason=reasons[image_id],
                group=groups[image_id],
                label="" if pd.isna(row["anomaly_class"]) else row["anomaly_class"],
                image=_data_uri(pixels),
                heat=_data_uri(overlay(pixels, heat[image_id], scale)),
            )
        )
    highest: dict[int, float] = {}
    for one in suspects:
        highest[one.group] = max(one.score, highest.get(one.group, one.score))
    return sorted(
        suspects,
        key=lambda one: (-(highest[one.group] if one.group else one.score), one.group, -one.score, one.image_id),
    )


def review_page(name: str, suspects: list[Suspect], verdicts: Mapping[str, str], cut: float, total: int) -> str:
    """The page as HTML.

    Args:
        name: of the line or scenario; the exported file is called after it.
        suspects: in the order shown first.
        verdicts: known so far: chosen beforehand, and exported again even where the image is not on the page.
        cut: of the policy.
        total: training images there are.
    """
    data = {
        "name": name,
        "cut": cut,
        "total": total,
        "verdicts": dict(sorted(verdicts.items())),
        "suspects": [asdict(one) for one in suspects],
    }
    # "<" is escaped: a file name must not be able to end the script element
    text = json.dumps(data, ensure_ascii=False, sort_keys=True).replace("<", "\\u003c")
    return TEMPLATE.read_text(encoding="utf-8").replace(DATA_MARK, text)


def _data_uri(pixels: np.ndarray) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="jpeg", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
