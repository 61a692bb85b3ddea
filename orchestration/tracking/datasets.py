"""The images of a run as MLflow's datasets: names, content hashes and counts. No image is copied."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from llbnad.data.manifest import contamination, read_manifest, training_images
from llbnad.utils.files import file_digest
from orchestration.pipeline.outputs import noisy_manifest, raw_manifest
from orchestration.pipeline.params import Params

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput


def dataset_inputs(scenario: str, params: Params, known: Collection[tuple[str, str]]) -> "list[DatasetInput]":
    """Return a scenario's data set as it came (context `raw`) and its images to train and test on (`training`).

    The digest is the MD5 of the manifest, which holds the SHA-256 of each image. A manifest that is not on this machine
    is left out. Paths are relative to the repository, so that they stay true where it is moved to.

    Args:
        scenario: name in params.yaml.
        params: the settings.
        known: names and digests that need not be returned again.
    """
    dataset = params.scenario(scenario).dataset
    wanted = [
        (scenario, "training", noisy_manifest(scenario)),
        (dataset, "raw", raw_manifest(dataset)),
    ]
    present = [(name, context, path, file_digest(path, "md5")) for name, context, path in wanted if path.exists()]
    return [_input(*one) for one in present if (one[0], one[-1]) not in known]


def _input(name: str, context: str, manifest: Path, digest: str) -> "DatasetInput":
    from mlflow.entities import Dataset, DatasetInput, InputTag

    images = read_manifest(manifest)
    counts: dict[str, float] = {"num_rows": len(images), "labelled": int(images["anomaly_class"].notna().sum())}
    if context == "training":
        train = training_images(images)
        share = contamination(train)
        counts |= {"train": len(train), "test": len(images) - len(train)}
        counts |= {} if share is None else {"contamination of train": round(share, 4)}
    dataset = Dataset(
        name=name,
        digest=digest,
        source_type="local",
        source=json.dumps({"uri": manifest.as_posix()}),
        profile=json.dumps(counts),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", context)])
