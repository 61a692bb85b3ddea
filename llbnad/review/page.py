"""One HTML page of suspect images for people to judge. The file holds everything; nothing is fetched.

The page shows the images with the highest consensus scores, the images nearest to the cut, where a verdict changes
most, the kept images on which the sub-models disagree most, and all images that were judged before. Near-duplicates,
close in feature distance, stand together, so that a row of similar images is judged at once.
"""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd

from llbnad.data.images import load_rgb
from llbnad.data.manifest import window_of
from llbnad.data.names import shown_name
from llbnad.evaluation.heat_scale import HeatScale, css_gradient, overlay
from llbnad.purification.aggregate import sub_model_columns
from llbnad.purification.purify import Purified
from llbnad.review.decision import OUTCOMES, Decision
from llbnad.utils.progress import track

TEMPLATE = Path(__file__).with_name("review_page.html")
DATA_MARK = "__REVIEW_DATA__"
PICTURE = 360  # longer side in pixels
JPEG_QUALITY = 82
NEAR_SHARE = 0.25  # as a share of the median distance of two images; takes in a repeated shot in slightly other light
GRID = 4  # cells per side of the image features, see `llbnad.features.image_vectors`


@dataclass(frozen=True)
class Suspect:
    """One row of the page."""

    image_id: str
    name: str  # what the camera called it
    path: str
    score: float
    spread: float  # standard deviation over the sub-models
    policy: str  # kept or rejected: the policy alone
    status: str  # kept, rejected or excluded, after the verdicts of the last run
    reason: str  # why the image is on the page
    group: int  # number of its group of near-duplicates, from 1; 0 for an image that stands alone
    label: str  # label in the data set; empty if there is none
    image: str  # data URI
    heat: str  # data URI: the image under its heat map


def choose_suspects(
    scores: pd.DataFrame,
    purified: Purified,
    verdicts: Mapping[str, str],
    limit: int,
    further: Mapping[str, str] = MappingProxyType({}),
) -> pd.Series:
    """Choose the images of the page. Return the reason why each image is on it, by image id.

    Args:
        scores: result of `llbnad.purification.aggregate.score_table`, with a column `score`.
        purified: which images are kept and rejected.
        verdicts: people's verdicts so far, by image id; these images are always shown.
        limit: number of further images: half by score, and of the others a quarter by distance from the cut
            and a quarter by disagreement.
        further: why other images are on the page, by image id.
    """
    cut = purified.cut if purified.by_evidence else scores["score"].max()  # the end of a fixed share parts nothing
    ordered = scores.assign(spread=spread(scores), distance=(scores["score"] - cut).abs()).sort_index()
    kept = ordered[ordered.index.isin(purified.kept)]
    limit = min(limit, len(ordered))  # of few images, half are no longer the highest scores
    beside = "of the others, nearest to the cut" if (scores["score"] > cut).any() else "next highest score"
    ranked = [
        (
            ordered.sort_values("score", ascending=False, kind="stable").index,
            "one of the highest scores",
            limit - limit // 4 * 2,
        ),
        (ordered.sort_values("distance", kind="stable").index, beside, limit // 4),
        (kept.sort_values("spread", ascending=False, kind="stable").index, "sub-models disagree", limit // 4),
    ]
    reasons = {image_id: "judged before" for image_id in ordered.index if image_id in verdicts}
    reasons = {**{image_id: why for image_id, why in further.items() if image_id in ordered.index}, **reasons}
    for ids, reason, count in ranked:
        fresh = [image_id for image_id in ids if image_id not in reasons][:count]
        reasons |= dict.fromkeys(fresh, reason)
    return pd.Series(reasons, dtype="object", name="reason")


def spread(scores: pd.DataFrame) -> pd.Series:
    """Return the standard deviation of each image's score over the sub-models."""
    return scores[sub_model_columns(scores)].astype("float64").std(axis=1, ddof=0)


def near_duplicates(image_ids: list[str], vectors: np.ndarray) -> dict[str, int]:
    """Return the number of each image's group of near-duplicates, from 1; 0 for an image that stands alone.

    A group is linked by steps of at most NEAR_SHARE times the median distance. The step depends on the spread of the
    images, because parts in a fixed position are all close to each other, yet no duplicates.

    Args:
        image_ids: ids of the N images.
        vectors: (N, D) vectors of `llbnad.features.image_vectors`.
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import pdist

    if len(image_ids) < 3:  # there is no typical distance to compare with
        return dict.fromkeys(image_ids, 0)
    distances = pdist(vectors.astype(np.float64))
    clusters = fcluster(linkage(distances, "single"), NEAR_SHARE * np.median(distances), "distance")
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
    decision: Decision,
    groups: Mapping[str, int],
    heat: Mapping[str, np.ndarray],
    image_root: Path,
    names: Mapping[str, str] = MappingProxyType({}),
) -> list[Suspect]:
    """Return the rows of the page, most suspicious first, with near-duplicates together.

    Args:
        manifest: rows of the training images.
        scores: see `choose_suspects`.
        reasons: result of `choose_suspects`.
        decision: what became of the images.
        groups: result of `near_duplicates`.
        heat: patch maps by image id.
        image_root: folder that manifest paths are relative to.
        names: what the camera called the images, by id, where their paths do not say it.
    """
    rows = manifest[manifest["image_id"].isin(reasons.index)].set_index("image_id")
    known = scores.loc[rows.index]
    spreads = spread(known)
    scale = decision.scale({image_id: heat[image_id] for image_id in rows.index})
    suspects = []
    for image_id in track(sorted(rows.index), "pictures"):
        row = rows.loc[image_id]
        image = load_rgb(image_root / row["path"], window_of(row))
        image.thumbnail((PICTURE, PICTURE))
        pixels = np.asarray(image)
        suspects.append(
            Suspect(
                image_id=image_id,
                name=names.get(image_id) or shown_name(row["path"]),
                path=row["path"],
                score=float(known["score"][image_id]),
                spread=float(spreads[image_id]),
                policy=decision.by_policy[image_id],
                status=decision.status[image_id],
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


def review_page(
    name: str,
    suspects: list[Suspect],
    verdicts: Mapping[str, str],
    decision: Decision,
    scale: HeatScale,
    notes: Sequence[str] = (),
) -> str:
    """Return the page as HTML.

    Args:
        name: name of the line or scenario, and of the file that the page exports.
        suspects: the rows, in the order in which they are first shown.
        verdicts: verdicts known so far. The page shows them as chosen, and exports them even for images not on the
            page.
        decision: what became of the training images in the last run.
        scale: how the heat maps of the rows are coloured.
        notes: lines to show above the images (`llbnad.purification.notes`).
    """
    data = {
        "name": name,
        "limit": f"{decision.limit.meaning}: {decision.limit.value:.4f}",
        "outcomes": OUTCOMES,
        "fates": dict(decision.fates),
        "fixed_share": decision.limit.share_ends is not None,
        "scale": {**scale.shown(), "colours": css_gradient()},
        "total": len(decision.status),
        "notes": [*decision.lines(verdicts), *notes],
        "verdicts": dict(sorted(verdicts.items())),
        "suspects": [asdict(one) for one in suspects],
    }
    # escape "<", so that no file name can end the script element
    text = json.dumps(data, ensure_ascii=False, sort_keys=True).replace("<", "\\u003c")
    return TEMPLATE.read_text(encoding="utf-8").replace(DATA_MARK, text)


def _data_uri(pixels: np.ndarray) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="jpeg", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
