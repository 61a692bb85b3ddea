"""The review page: which suspects people see, which of them look alike; no file name can break the page."""

import base64
import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from llbnad.config import EncoderConfig
from llbnad.data.sources.records import Listing, Record
from llbnad.data.sources.scan_files import scan
from llbnad.features.image_vectors import image_vectors
from llbnad.features.store import FeatureStore
from llbnad.policies.fraction import Fraction
from llbnad.purification.purify import Purified, purify
from llbnad.purification.verdicts import override
from llbnad.review.decision import decided
from llbnad.review.page import GRID, build_suspects, choose_suspects, near_duplicates, review_page, spread
from tests.conftest import save_image

IDS = [f"{number:064x}" for number in range(100)]


@pytest.fixture
def scores():
    """Scores 0 … 99 by id; the sub-models disagree on image 10 alone."""
    values = np.arange(100.0)
    table = pd.DataFrame({"sub_model_0": values, "sub_model_1": values, "score": values}, index=pd.Index(IDS))
    table.loc[IDS[10], ["sub_model_0", "sub_model_1"]] = [0, 20]
    return table


PURIFIED = Purified(tuple(IDS[:70]), tuple(IDS[70:]), 69.0)


def test_suspects_are_the_highest_the_undecided_the_disputed_and_the_judged(scores):
    reasons = choose_suspects(scores, PURIFIED, {IDS[3]: "normal", "f" * 64: "defect"}, 8)
    found = {reason: {IDS.index(image_id) for image_id in reasons.index[reasons == reason]} for reason in set(reasons)}
    assert found["one of the highest scores"] == {96, 97, 98, 99}
    assert found["of the others, nearest to the cut"] == {69, 68}  # ties by image id
    assert found["sub-models disagree"] >= {10} and len(found["sub-models disagree"]) == 2
    assert found["judged before"] == {3}
    shuffled = choose_suspects(scores.sample(frac=1, random_state=0), PURIFIED, {IDS[3]: "normal"}, 8)
    assert shuffled.to_dict() == reasons.to_dict()
    assert len(choose_suspects(scores, PURIFIED, {}, 1000)) == 100
    further = choose_suspects(scores, PURIFIED, {IDS[3]: "normal"}, 8, dict.fromkeys([IDS[3], IDS[5], "e" * 64], "new"))
    assert {**reasons, IDS[5]: "new"} == further.to_dict()  # what was judged stays so, what is not there is left out
    assert spread(scores)[IDS[10]] == 10


def test_real_images_taken_again_are_grouped_and_others_are_not(few_cells, tmp_path):
    manifest, root = few_cells
    records = []
    for number, path in enumerate(manifest["path"]):
        with Image.open(root / path) as image:
            image.save(tmp_path / f"{number:02d}.png")
            records.append(Record(f"{number:02d}.png", "cells", str(number)))
            if number < 2:  # the same cell, a little brighter
                image.point(lambda value: value * 1.03).save(tmp_path / f"{number:02d}_again.png")
                records.append(Record(f"{number:02d}_again.png", "cells", str(number)))
    again = scan(Listing(tmp_path, records)).manifest
    store = FeatureStore(tmp_path / "cache", EncoderConfig(input_size=64), again, tmp_path)
    ids = again["image_id"].tolist()
    groups = near_duplicates(ids, image_vectors(store, ids, GRID, "alike"))
    by_path = {path: groups[image_id] for image_id, path in zip(ids, again["path"], strict=True)}
    for number in range(2):
        assert by_path[f"{number:02d}.png"] == by_path[f"{number:02d}_again.png"] != 0
    assert by_path["00.png"] != by_path["01.png"]
    assert sum(group == 0 for group in by_path.values()) >= 14
    assert near_duplicates(ids[:2], np.ones((2, 3))) == {ids[0]: 0, ids[1]: 0}


def test_groups_do_not_depend_on_the_order():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(30, 8))
    vectors[20:] = vectors[:10] + 1e-3
    groups = near_duplicates(IDS[:30], vectors)
    assert len(set(groups.values())) == 11
    assert all(groups[IDS[k]] == groups[IDS[20 + k]] for k in range(10))
    order = rng.permutation(30)
    assert near_duplicates([IDS[k] for k in order], vectors[order]) == groups


def test_a_hostile_file_name_stays_text(scores, tmp_path):
    name = "</script><img src=x onerror=alert(1)>"
    save_image(tmp_path / "x.png", size=(400, 100))
    manifest = pd.DataFrame({"image_id": IDS[98:], "path": "x.png", "anomaly_class": [None, "OK"]})
    reasons = pd.Series({IDS[98]: "highest score", IDS[99]: name})
    heat = {image_id: np.ones((4, 4), np.float16) for image_id in IDS[98:]}
    groups = dict.fromkeys(IDS[98:], 1)
    decision = decided(scores["score"], PURIFIED)
    scale = decision.scale(heat)
    suspects = build_suspects(manifest, scores, reasons, decision, groups, heat, tmp_path, {IDS[98]: "camera.png"})
    page = review_page(name, suspects, {IDS[98]: "defect"}, decision, scale, [f"2 images stand apart: {name}"])
    assert name not in page
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    content = json.loads(text)
    assert content["name"] == content["suspects"][0]["reason"] == name
    assert [one["image_id"] for one in content["suspects"]] == [IDS[99], IDS[98]]  # the higher score first
    assert content["verdicts"] == {IDS[98]: "defect"}
    assert content["notes"][-1] == f"2 images stand apart: {name}"
    assert [one["name"] for one in content["suspects"]] == ["x.png", "camera.png"]
    assert page == review_page(name, suspects, {IDS[98]: "defect"}, decision, scale, content["notes"][-1:])
    with Image.open(io.BytesIO(base64.b64decode(content["suspects"][0]["image"].partition(",")[2]))) as picture:
        assert picture.size == (360, 90)  # not stretched


def test_the_page_says_what_the_cut_did_what_verdicts_changed_and_what_waits(scores):
    plain = decided(scores["score"], PURIFIED)
    assert plain.lines({}) == [
        "The policy rejected 30 of 100 images, those above its cut at 69.",
        "In the last run no verdict changed this.",
    ]
    after = Purified(tuple(IDS[1:69] + IDS[99:]), tuple(IDS[70:99] + IDS[:1]), 69.0)  # 69 is excluded
    decision = decided(scores["score"], after)
    assert decision.by_policy == plain.by_policy and decision.status[IDS[69]] == "excluded"
    applied = {IDS[0]: "defect", IDS[69]: "exclude", IDS[99]: "normal"}
    assert decision.lines(applied)[1:] == [
        "The last run changed this by verdicts: 1 kept by the policy are rejected, "
        "1 rejected by it are kept, 1 are excluded."
    ]
    more = {**applied, IDS[5]: "defect", "f" * 64: "normal"}
    assert decision.lines(more)[2:] == [
        "1 of 4 verdicts in the review file wait for the next run.",
        "1 verdicts are on images that are not among these.",
    ]


def test_where_nothing_is_rejected_the_page_says_why(scores):
    kept = decided(scores["score"], Purified(tuple(IDS), (), 99.0))
    assert kept.limit.kind == "largest" and kept.lines({})[0] == (
        "There is no cut: the policy sees no second group of scores and kept all 100 images. None stands apart."
    )
    scores.loc[IDS[99], "score"] = 1e9
    apart = decided(scores["score"], Purified(tuple(IDS), (), 1e9))
    assert apart.limit.kind == "apart" and 99 < apart.limit.value < 1e9
    assert "Images stand apart from" in apart.lines({})[0]
    assert decided(scores["score"], PURIFIED, "rank_mean").limit.on_maps is None


def test_the_page_calls_nothing_rejected_that_a_fixed_share_leaves_out(scores):
    share = purify(scores["score"], Fraction(keep=0.2))
    plain = decided(scores["score"], share)
    assert plain.lines({})[0] == (
        "The policy keeps a fixed share: 20 of 100 images, those up to 19. The 80 others are left out by the fixed "
        "share, which says nothing of defects. None stands apart."
    )
    assert plain.fates == {"kept": "in the fixed share", "rejected": "left out by the fixed share"}
    assert decided(scores["score"], PURIFIED).fates == {"kept": "kept by policy", "rejected": "rejected by policy"}
    judged = decided(scores["score"], override(share, {IDS[0]: "defect", IDS[50]: "normal"}))
    assert "1 kept by the policy are rejected, 1 left out by it are kept" in judged.lines({})[1]
    assert plain.limit.meaning == "largest score, as none stands apart" and plain.limit.value == 99
    assert plain.limit.on_maps is None  # so that colours span the maps, and a defect among them is seen
    reasons = choose_suspects(scores, share, {}, 8)
    assert set(reasons) == {"one of the highest scores", "next highest score", "sub-models disagree"}
    assert {IDS.index(one) for one in reasons.index} >= {*range(94, 100)}  # none from where the share ends
    whole = decided(scores["score"], purify(scores["score"], Fraction(keep=1)))
    assert whole.lines({})[0].endswith("100 of 100 images, those up to 99. None stands apart.")


def test_images_with_the_score_of_the_cut_keep_their_status(scores):
    scores["score"] = 1.0
    decision = decided(scores["score"], Purified(tuple(IDS[:70]), tuple(IDS[70:]), 1.0))
    assert [decision.by_policy[one] for one in (IDS[69], IDS[70])] == ["kept", "rejected"]
