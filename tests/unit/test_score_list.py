"""Tables of scores for people: the camera's name first, and a reason for every suspect, also if nothing is rejected."""

import pandas as pd

from llbnad.policies.fraction import Fraction
from llbnad.purification.purify import Purified, purify
from llbnad.purification.score_list import score_list, suspect_list
from llbnad.purification.verdicts import override
from tests.unit.test_notes import IDS, PATHS, table

COLUMNS = ["name", "score", "suspicious_from", "status", "verdict", "path", "image_id"]


def test_all_training_images_are_listed_with_their_names():
    scores = table()["score"]
    found = score_list(scores, Purified(tuple(IDS[:38]), tuple(IDS[38:40]), float(scores.iloc[37])), PATHS)
    assert found.columns.tolist() == COLUMNS and len(found) == 40
    assert found["name"].tolist()[:3] == ["039.png", "038.png", "037.png"]
    assert found["status"].tolist()[:3] == ["rejected", "rejected", "kept"] and found["score"].is_monotonic_decreasing
    assert (found["suspicious_from"] == scores.iloc[37]).all()


def test_suspects_have_a_reason_also_if_nothing_is_rejected():
    scores = table()
    nothing = Purified(tuple(IDS[:40]), (), float(scores["score"].max()))
    found = suspect_list(scores, nothing, PATHS, 6)
    assert found.columns.tolist() == [*COLUMNS[:5], "reason", *COLUMNS[5:]]
    assert found["name"].tolist() == [f"{number:03d}.png" for number in range(39, 33, -1)]
    assert found["reason"].tolist() == [
        *["kept by the policy, stands apart (above 1.93)"] * 4,
        *["kept by the policy, one of the 6 highest scores"] * 2,
    ]
    assert 1 < found["suspicious_from"].iloc[0] < 5  # from there on images stand apart
    clean = suspect_list(table(200, 0), Purified(tuple(IDS), (), float(table(200, 0)["score"].max())), PATHS, 3)
    assert clean["name"].tolist() == ["199.png", "198.png", "197.png"]


def test_people_and_policy_are_told_apart():
    scores = table()
    cut = float(scores["score"].iloc[36])
    kept = {*IDS[:37], IDS[38]} - {IDS[0], IDS[1]}
    decided = Purified(tuple(sorted(kept)), (IDS[0], IDS[37], IDS[39]), cut)
    verdicts = {IDS[0]: "defect", IDS[1]: "exclude", IDS[2]: "normal", IDS[38]: "normal", IDS[39]: "defect"}
    found = suspect_list(scores, decided, PATHS, 0, verdicts).set_index("name")
    assert found["reason"].to_dict() == {
        "039.png": f"rejected by the policy (above {cut:.4g}), rejected by a person, stands apart (above 1.842)",
        "038.png": f"rejected by the policy (above {cut:.4g}), kept by a person, stands apart (above 1.842)",
        "037.png": f"rejected by the policy (above {cut:.4g}), stands apart (above 1.842)",
        "036.png": "kept by the policy, stands apart (above 1.842)",
        "002.png": "kept by the policy, kept by a person",
        "001.png": "kept by the policy, excluded by a person",
        "000.png": "kept by the policy, rejected by a person",
    }
    assert found["status"]["001.png"] == "excluded" and found["verdict"]["001.png"] == "exclude"
    gone = {one: path for one, path in PATHS.items() if one != IDS[1]}  # as where excluded images have no row any more
    assert len(score_list(pd.Series(scores["score"]), decided, gone)) == 39


def test_what_a_fixed_share_leaves_out_is_not_called_rejected():
    scores = table()  # 036 … 039 stand apart
    verdicts = {IDS[5]: "normal", IDS[30]: "normal", IDS[31]: "defect"}
    decided = override(purify(scores["score"], Fraction(keep=0.5)), verdicts)
    assert len(decided.rejected) == 19 and not decided.by_evidence
    found = suspect_list(scores, decided, PATHS, 5, verdicts).set_index("name")
    assert found["reason"].to_dict() == {
        **{
            f"{number:03d}.png": "left out by the fixed share, stands apart (above 1.93)"
            for number in range(39, 35, -1)
        },
        "035.png": "left out by the fixed share, one of the 5 highest scores",
        "031.png": "left out by the fixed share, rejected by a person",
        "030.png": "left out by the fixed share, kept by a person",
        "005.png": "in the fixed share, kept by a person",
    }
    assert found["status"].tolist() == [*["left out"] * 5, "rejected", "kept", "kept"]
    # an image is suspicious from where scores stand apart, not from where the share ends
    by_evidence = suspect_list(scores, Purified(tuple(IDS[:40]), (), 1e9), PATHS, 5)
    assert (found["suspicious_from"] == by_evidence["suspicious_from"].iloc[0]).all()
