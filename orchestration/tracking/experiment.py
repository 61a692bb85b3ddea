"""The experiment that holds all runs of a workspace, made so that MLflow's pages open it as one of machine learning."""

from typing import TYPE_CHECKING

from orchestration.tracking.server import MLFLOW_FOLDER, is_http

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "llbnad"
ABOUT = """To compare runs of a scenario, open the later one: its description compares it, on the same test images, with
the results that stood there before and with the newest run of each other policy, says whether the difference is more
than chance, and has a picture. (The button *Compare* begins with a plot of parameters.)

One run per scenario and version of its data and settings; the runs of its sub-models lie below it.

A run is called after what tells it apart: the scenario, the policy, the version of `llbnad-<scenario>` in the model
registry that it became; then the data set and the hash of data and settings. Its description compares what it learnt
from with the comparators: everything (*none*), true normals only (*oracle*), as many images drawn blindly (*random*).

Metrics that begin with `train_` are measured on images to train on; `image_…` and `pixel_…` on test images alone."""
TAGS = {
    "mlflow.experimentKind": "custom_model_development",  # else the pages open it as one of language models
    "mlflow.note.content": ABOUT,
}


def experiment_id(client: "MlflowClient", uri: str) -> str:
    """Return the id of the experiment. Make it if it is missing; tags that it has are left as they are."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        # a server decides where artifacts go; for a bare database, MLflow would put them into ./mlruns
        location = None if is_http(uri) else (MLFLOW_FOLDER / "artifacts").resolve().as_uri()
        return str(client.create_experiment(EXPERIMENT, artifact_location=location, tags=TAGS))
    for name, value in TAGS.items():
        if name not in experiment.tags:
            client.set_experiment_tag(experiment.experiment_id, name, value)
    return str(experiment.experiment_id)
