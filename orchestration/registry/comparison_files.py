"""Files for people beside the report of a challenge: challenger and champion compared, and the champion's suspects."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from llbnad.data.decode import page_of
from llbnad.monitoring.probe import Probe
from llbnad.utils.files import write_csv
from orchestration.tracking.server import MLFLOW_FOLDER

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from llbnad.model.model import Model

CARD, SUSPECTS = "card", "suspects.png"  # folder of a version's files with its card and pictures; one of these
SCORES, IMAGES, TABLE = "scores_beside_champion.png", "differing_images.png", "differing_images.csv"


def comparison_files(scenario: str) -> list[Path]:
    """Return the files of a scenario's latest challenge, relative to the repository's root. They may be missing."""
    return [MLFLOW_FOLDER / "registry" / scenario / name for name in (SCORES, IMAGES, TABLE)]


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
    from llbnad.evaluation.tile_names import shown_name
    from llbnad.inference.predict import Predictor
    from llbnad.monitoring.champion_pictures import draw_differences, draw_scores, most_different
    from orchestration.pipeline.features import IMAGE_ROOT

    limits = tuple(one.threshold.value if one.threshold else None for one in (champion, challenger))
    scores, pictures, table = comparison_files(scenario)
    draw_scores(before, now, (limits[0], limits[1]), scores)
    paths = dict(zip(images["image_id"], images["path"], strict=True))
    differing = most_different(before, now, (champion.threshold, challenger.threshold))
    chosen = [paths[one] for one in differing if one in paths]
    there = [path for path in chosen if page_of(IMAGE_ROOT / path)[0].exists()]
    names = [shown_name(path) for path in there]  # the camera's
    files = {
        name if names.count(name) == 1 else path: IMAGE_ROOT / path for path, name in zip(there, names, strict=True)
    }
    both = (Predictor(champion, device), Predictor(challenger, device))
    write_csv(draw_differences(files, *both, pictures), table)
