"""The model registry: which detector of a line is in use, which came before, and who was refused.

A line's detectors are versions of the registered model `llbnad-<scenario>`; the alias `champion` names the one in use.
The registry is not the record: data/ and dvc.lock are, and a challenge can be repeated at any time.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from llbnad.errors import LlbnadError
from orchestration.tracking.server import prepare_environment, tracking_uri, without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
MD5, REFUSED, WITHDRAWN, PREVIOUS = "model.md5", "refused", "withdrawn", "champion.before"  # version tags
EXIT_REFUSED = 3  # exit code of a challenge that was judged and refused: Python's own for a crash is 1
UPLOAD_SECONDS = "120"  # a model file is larger than a metric


class RegistryError(LlbnadError):
    """The registry did not answer, or has not what was asked of it."""


def model_name(scenario: str) -> str:
    """The registered model of a scenario."""
    return f"llbnad-{scenario}"


@contextmanager
def registry_client(scenario: str) -> Iterator["MlflowClient"]:
    """A client; whatever goes wrong with the server becomes one error with the remedy."""
    prepare_environment(MLFLOW_HTTP_REQUEST_TIMEOUT=UPLOAD_SECONDS)
    import mlflow
    from filelock import Timeout
    from mlflow.exceptions import MlflowException

    uri = tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        yield mlflow.MlflowClient(uri)
    except Timeout:
        raise RegistryError(f"somebody else is challenging the champion of {scenario}: wait, and try again") from None
    except (MlflowException, OSError) as error:  # requests' errors are OSErrors
        if getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST":
            raise RegistryError(
                f"{error}: `python -m orchestration registry list {scenario}` shows which versions there are"
            ) from None
        shown = without_password(f"MLflow at {uri}: {' '.join(str(error).split())[:500]}")
        raise RegistryError(
            f"{shown}\nThe champion is as it was and nothing is lost: the detector is data/detector/{scenario}/. "
            f"Start the server and run `python -m orchestration registry challenge {scenario}` or materialise again."
        ) from None


def versions(client: "MlflowClient", scenario: str) -> "list[ModelVersion]":
    """All versions, newest first."""
    found = client.search_model_versions(f"name = '{model_name(scenario)}'")
    return sorted(found, key=lambda one: -int(one.version))


def champion_of(client: "MlflowClient", scenario: str) -> "ModelVersion | None":
    """The version in use, if there is one."""
    for one in versions(client, scenario):
        # search results do not carry aliases in every backend; the version itself does
        full = client.get_model_version(one.name, one.version)
        if CHAMPION in full.aliases:
            return full
    return None


def crown(client: "MlflowClient", scenario: str, version: str, before: "ModelVersion | None") -> str:
    """Move the alias from `before`, the champion, to `version`, which remembers it; return what was done in words."""
    name = model_name(scenario)
    if before is not None and str(before.version) == version:  # an int where the registry is a database
        return f"version {version} of {name} is champion already"
    wanted = client.get_model_version(name, version)
    if before is not None:
        client.set_model_version_tag(name, version, PREVIOUS, str(before.version))
    move_alias(client, wanted)
    return f"version {version} of {name} is champion" + (f", version {before.version} was" if before else "")


def move_alias(client: "MlflowClient", version: "ModelVersion") -> None:
    for tag in (REFUSED, WITHDRAWN):  # whoever promotes it has decided otherwise
        if tag in version.tags:
            client.delete_model_version_tag(version.name, str(version.version), tag)
    client.set_registered_model_alias(version.name, CHAMPION, str(version.version))


def is_address(uri: str) -> bool:
    """Whether `uri` is an MLflow address, such as models:/llbnad-line@champion, and no path."""
    return uri.startswith(("models:/", "runs:/", "mlflow-artifacts:/"))


def model_file(uri: str) -> Path:
    """The safetensors file of a path, or of an MLflow address."""
    if not is_address(uri):
        return Path(uri)
    with registry_client(uri.partition("/llbnad-")[2].partition("@")[0].partition("/")[0] or "…"):
        import mlflow

        folder = Path(mlflow.artifacts.download_artifacts(f"{uri}/artifacts"))
    (found,) = folder.glob("*.safetensors")
    return found
