"""Files for people beside the report of a challenge.

They compare challenger and champion, name what the challenger newly learnt as normal though it is a defect to the
champion, and show the champion's suspects.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from llbnad.data.decode import page_of
from llbnad.data.names import shown_name
from llbnad.monitoring.probe import Probe
from llbnad.utils.files import write_csv
from orchestration.tracking.server import MLFLOW_FOLDER

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from llbnad.model.model import Model
    from llbnad.monitoring.novelty import Alarm

CARD, SUSPECTS = "card", "suspects.png"  # folder of a version's files with its card and pictures; one of these
SCORES, IMAGES, TABLE = "scores_beside_champion.png", "differing_images.png", "differing_images.csv"
ALARMS, ALARM_TABLE = "newly_learnt_alarms.png", "newly_learnt_alarms.csv"


def comparison_files(scenario: str) -> list[Path]:
    """Return the files of a scenario's latest challenge, relative to the repository's root. They may be missing."""
    return [_file(scenario, name) for name in (SCORES, IMAGES, TABLE, ALARMS, ALARM_TABLE)]


def champion_suspects(scenario: str) -> Path:
    """Return the picture of the suspects of the version in use, relative to the repository's root. It may be missing.

    A later training, such as that of a version that was refused, leaves it as it is.
    """
    return MLFLOW_FOLDER / "registry" / scenario / "champion" / CARD / SUSPECTS


def fetch_champion_suspects(scenario: str, version: "ModelVersion") -> None:
    """Fetch that picture from the registry; a version of an earlier release may have none."""
    import mlflow
    from mlflow.exceptions import MlflowException

    target = champion_suspects(scenario)
    target.unlink(missing_ok=True)
    folder = target.parents[1]
    folder.mkdir(parents=True, exist_ok=True)
    with suppress(MlflowException, OSError):
        uri = f"models:/{version.name}/{version.version}/{CARD}/{SUSPECTS}"
        mlflow.artifacts.download_artifacts(uri, dst_path=str(folder))


def write_comparison(
    scenario: str, champion: "Model", challenger: "Model", before: Probe, now: Probe, images: pd.DataFrame, device: str
) -> None:
    """Write the files.

    Args:
        scenario: name in params.yaml.
        champion: the detector in use.
        challenger: the new detector.
        before: scores of the champion.
        now: scores of the challenger, of the same images.
        images: manifest of the scenario.
        device: torch's name of the device.
    """
    from llbnad.inference.predict import Predictor
    from llbnad.monitoring.champion_pictures import draw_differences, draw_scores, most_different

    limits = tuple(one.threshold.value if one.threshold else None for one in (champion, challenger))
    draw_scores(before, now, (limits[0], limits[1]), _file(scenario, SCORES))
    paths = dict(zip(images["image_id"], images["path"], strict=True))
    differing = most_different(before, now, (champion.threshold, challenger.threshold))
    files = _by_shown_name([paths[one] for one in differing if one in paths])
    both = (Predictor(champion, device), Predictor(challenger, device))
    write_csv(draw_differences(files, *both, _file(scenario, IMAGES)), _file(scenario, TABLE))


def write_alarms(scenario: str, champion: "Model", alarms: "Sequence[Alarm]", device: str) -> None:
    """Write the newly learnt images that the champion calls defects: all as a table, the first ones as a picture.

    Args:
        scenario: name in params.yaml.
        champion: the detector in use.
        alarms: these images, highest score first.
        device: torch's name of the device.
    """
    from llbnad.inference.predict import Predictor
    from llbnad.monitoring.champion_pictures import SHOWN_ALARMS, draw_alarms

    rows = [(shown_name(one.path), one.score, one.label, one.path, one.image_id) for one in alarms]
    table = pd.DataFrame(rows, columns=["image", "champion", "champion says", "path", "image_id"])
    write_csv(table, _file(scenario, ALARM_TABLE))
    shown = _by_shown_name([one.path for one in alarms[:SHOWN_ALARMS]])
    draw_alarms(shown, Predictor(champion, device), _file(scenario, ALARMS))


def read_alarms(scenario: str) -> list[str]:
    """Return the ids of the images in that table of the scenario's latest challenge; empty if there is none."""
    table = _file(scenario, ALARM_TABLE)
    return pd.read_csv(table)["image_id"].tolist() if table.exists() else []


def _file(scenario: str, name: str) -> Path:
    return MLFLOW_FOLDER / "registry" / scenario / name


def _by_shown_name(paths: Sequence[str]) -> dict[str, Path]:
    """Return those images that are on disk by the camera's names; those of equal names by their paths."""
    from orchestration.pipeline.features import IMAGE_ROOT

    there = [path for path in paths if page_of(IMAGE_ROOT / path)[0].exists()]
    counts = Counter(shown_name(path) for path in there)
    return {name if counts[name := shown_name(path)] == 1 else path: IMAGE_ROOT / path for path in there}
