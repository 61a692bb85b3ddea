"""Day 0 of a production line: 40 solar cells, 6 of them defective, nobody has said which. The settings are the
repository's own, but for smaller images, so that its default is held to what it promises of a young line.

The draw of the images is one at which the policy of 0.1 rejected nothing: its threshold was that of a kept defect, and
it found 1 of 8 new defects. docs/results.md (few images) says what becomes of ten draws.
"""

import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient

import llbnad
from llbnad.config import ElpvDataset
from llbnad.data.sources import elpv
from llbnad.utils.files import file_digest
from orchestration.commands.registry import promote
from orchestration.registry.register_version import challenge
from orchestration.registry.store import model_file
from tests.conftest import REPOSITORY
from tests.pipeline.conftest import add_records, make_workspace, repro
from tests.pipeline.test_registry import failed, outcomes

LINE = "young"
DRAW = 3
SIZE = 112  # pixels of the encoder's input: at half the repository's size, a line is a third of the work
NORMALS, DEFECTS, NEW_NORMALS, NEW_DEFECTS = 34, 6, 12, 8


@dataclass(frozen=True)
class Young:
    """The line's workspace, and the images that come later."""

    root: Path
    defects: list[str]  # ids of the defects among the line's images
    new: dict[str, list[Path]]

    def repro(self, **changed: object) -> None:
        """Run the pipeline, with settings of the line changed."""
        path = self.root / "params.yaml"
        params = yaml.safe_load(path.read_text())
        params["scenarios"][LINE].update(changed)
        path.write_text(yaml.safe_dump(params, sort_keys=False))
        repro(self.root, f"evaluation@{LINE}")

    def challenge(self) -> dict[str, object]:
        """Judge the detector and promote it if no check fails, as the assets do."""
        report = challenge(LINE)
        if not failed(report):
            promote(LINE, report["version"], if_accepted=True)
        return report

    def champion(self) -> tuple[int, int]:
        """Return how many of the new defects the champion finds, and how many of the new normals it calls defects."""
        model = llbnad.load(model_file(f"models:/llbnad-{LINE}@champion"))
        above = {
            kind: (model.predict(paths)["score"] > model.threshold.value).sum() for kind, paths in self.new.items()
        }
        return int(above["defect"]), int(above["normal"])


@pytest.fixture
def young(tmp_path, monkeypatch):
    listing = elpv.records(ElpvDataset())
    normal = [one for one in listing.records if one.anomaly_class == "OK"]
    defect = [one for one in listing.records if one.anomaly_class != "OK"]
    draw = random.Random(DRAW)
    draw.shuffle(normal)
    draw.shuffle(defect)
    (tmp_path / "images").mkdir()
    for number, record in enumerate([*normal[:NORMALS], *defect[:DEFECTS]]):
        shutil.copy(listing.root / record.path, tmp_path / "images" / f"{number:02d}.png")
    new = {
        "normal": [listing.root / one.path for one in normal[NORMALS:][:NEW_NORMALS]],
        "defect": [listing.root / one.path for one in defect[DEFECTS:][:NEW_DEFECTS]],
    }
    ours = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    review = f"data/review/{LINE}.csv"
    encoder = {**ours["defaults"]["encoder"], "input_size": SIZE}
    settings = {"dataset": LINE, "noise": {"protocol": "as_is"}, "review": review, "comparators": [],
                "suspects": 0, "encoder": encoder,
                "sensitivity": {**ours["defaults"]["sensitivity"], "images": 0}}  # fmt: skip
    root = make_workspace(tmp_path / "line", {LINE: tmp_path / "images"}, {LINE: {**ours["defaults"], **settings}})
    params = yaml.safe_load((root / "params.yaml").read_text())
    params.update({"defaults": ours["defaults"], "sub_models": ours["sub_models"]})
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    add_records(root)
    (root / review).write_text("image_id,verdict\n")
    monkeypatch.chdir(root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Young(root, [file_digest(listing.root / one.path) for one in defect[:DEFECTS]], new)


def test_a_better_policy_follows_a_blind_champion_and_people_s_labels_bind(young):
    """The line begins with the rules of 0.1, by which a kept defect sets the threshold: its champion finds little.

    The repository's default follows it by itself, and is not blind. Then a person names defects.
    """
    defaults = yaml.safe_load((REPOSITORY / "params.yaml").read_text())["defaults"]
    ours = {key: defaults[key] for key in ("selection", "calibration")}
    young.repro(selection={"policy": "fraction", "keep": 1.0}, calibration={**ours["calibration"], "bound": "none"})
    first = young.challenge()
    assert failed(first) == set()
    assert {name for name, outcome in outcomes(first).items() if outcome == "skipped"} >= {"agreement", "verdicts"}
    assert first["advice"].startswith("nothing to compare with: look at the suspects")
    blind = young.champion()
    assert blind[0] < NEW_DEFECTS / 2

    young.repro(**ours)
    second = young.challenge()
    assert failed(second) == set()
    client = MlflowClient(f"sqlite:///{young.root / 'mlflow' / 'mlflow.db'}")
    assert str(client.get_model_version_by_alias(f"llbnad-{LINE}", "champion").version) == second["version"] != "1"
    found, alarms = young.champion()
    assert found > blind[0] and found >= NEW_DEFECTS / 2 and alarms <= 1

    # a person marks the four most suspicious defects; a detector that does not find them is refused by their names
    scores = pd.read_parquet(young.root / "data" / "purified" / LINE / "scores.parquet").set_index("image_id")["score"]
    labelled = scores[young.defects].nlargest(4).index.tolist()
    review = young.root / "data" / "review" / f"{LINE}.csv"
    review.write_text("image_id,verdict\n" + "".join(f"{image_id},defect\n" for image_id in labelled))
    young.repro()
    third = young.challenge()
    verdicts = next(one for one in third["findings"] if one["name"] == "verdicts")
    assert "of 4 images normal that people called defects" in verdicts["observed"]
    assert ("data/own/young/" in verdicts["observed"]) is not verdicts["observed"].startswith("calls 0 of 4")
    assert failed(third) <= {"verdicts"}
    after = young.champion()
    assert after[0] >= found and after[1] <= max(1, alarms)
