"""The model registry: which detector of a line is in use, which was in use before, and which was refused.

The detectors of a line are versions of the registered model `llbnad-<scenario>`. The alias `champion` names the version
in use. data/ and dvc.lock are the record of the pipeline, not the registry: a challenge can be repeated at any time.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from llbnad.errors import LlbnadError
from orchestration.tracking.database import prepare_database
from orchestration.tracking.server import page, prepare_environment, tracking_uri, without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
MD5, REFUSED, WITHDRAWN, PREVIOUS = "model.md5", "refused", "withdrawn", "champion.before"  # version tags
SENSITIVITY = "sensitivity"  # tag of a version: which synthetic defects its evaluation has found
UNPROVEN = "unproven"  # tag of a version that was judged without a champion to compare it with
ADDRESS = re.compile(r"models:/[^/@\s]+[@/][\w.-]+|runs:/\w+/[\w./-]+|mlflow-artifacts:/[\w./-]+", re.ASCII)
EXIT_REFUSED = 3  # exit code of a refused challenge; a crash of Python gives 1
UPLOAD_SECONDS = "120"  # longer than usual, because a model file is larger than a metric


class RegistryError(LlbnadError):
    """The registry did not answer, or does not have the requested version."""


def model_name(scenario: str) -> str:
    """Return the name of a scenario's registered model."""
    return f"llbnad-{scenario}"


def version_page(scenario: str, version: str) -> str:
    """Return the address of a version in the web pages of MLflow."""
    return page(tracking_uri(), "models", model_name(scenario), "versions", version)


@contextmanager
def registry_client(scenario: str) -> Iterator["MlflowClient"]:
    """Yield a client. Any error of the server inside the block becomes a RegistryError that names the remedy."""
    prepare_environment(MLFLOW_HTTP_REQUEST_TIMEOUT=UPLOAD_SECONDS)
    prepare_database()
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
        code = getattr(error, "error_code", "")
        # MLflow calls an alias that no version has a wrong parameter
        if code == "RESOURCE_DOES_NOT_EXIST" or (code == "INVALID_PARAMETER_VALUE" and "alias" in str(error)):
            raise RegistryError(
                f"{error}: `python -m orchestration registry list {scenario}` shows which versions there are"
            ) from None
        shown = without_password(f"MLflow at {uri}: {' '.join(str(error).split())[:500]}")
        raise RegistryError(
            f"{shown}. The champion is as it was and nothing is lost: the detector is data/detector/{scenario}/. "
            f"Start the server and run `python -m orchestration registry challenge {scenario}` or materialise again."
        ) from None


def versions(client: "MlflowClient", scenario: str) -> "list[ModelVersion]":
    """Return all versions, newest first."""
    found = client.search_model_versions(f"name = '{model_name(scenario)}'")
    return sorted(found, key=lambda one: -int(one.version))


def champion_of(client: "MlflowClient", scenario: str) -> "ModelVersion | None":
    """Return the version in use, or None."""
    for one in versions(client, scenario):
        # not every backend includes aliases in search results
        full = client.get_model_version(one.name, one.version)
        if CHAMPION in full.aliases:
            return full
    return None


def crown(client: "MlflowClient", scenario: str, version: str, before: "ModelVersion | None") -> str:
    """Move the alias from the champion `before` to `version`, and return a sentence that says so.

    A tag of `version` keeps the version that was champion before.
    """
    name = model_name(scenario)
    if before is not None and str(before.version) == version:  # a registry in a database returns an int
        return f"version {version} of {name} is champion already"
    wanted = client.get_model_version(name, version)
    if before is not None:
        client.set_model_version_tag(name, version, PREVIOUS, str(before.version))
    move_alias(client, wanted)
    return f"version {version} of {name} is champion" + (f", version {before.version} was" if before else "")


def move_alias(client: "MlflowClient", version: "ModelVersion") -> None:
    for tag in (REFUSED, WITHDRAWN):  # a promotion overrides both
        if tag in version.tags:
            client.delete_model_version_tag(version.name, str(version.version), tag)
    client.set_registered_model_alias(version.name, CHAMPION, str(version.version))


def is_address(uri: str) -> bool:
    """Return whether `uri` is an MLflow address, such as models:/llbnad-line@champion, and not a path."""
    return uri.startswith(("models:/", "runs:/", "mlflow-artifacts:/"))


def model_file(uri: str) -> Path:
    """Return the safetensors file of a path or of an MLflow address. A model at an address is downloaded."""
    if not is_address(uri):
        return Path(uri)
    if not ADDRESS.fullmatch(uri):
        expected = "expected models:/NAME@ALIAS, models:/NAME/VERSION or runs:/RUN/PATH, such as"
        raise RegistryError(f"the model's address is {uri!r}; {expected} models:/llbnad-LINE@champion")
    with registry_client(uri.partition("/llbnad-")[2].partition("@")[0].partition("/")[0] or "…"):
        import mlflow

        folder = Path(mlflow.artifacts.download_artifacts(f"{uri}/artifacts"))
    (found,) = folder.glob("*.safetensors")
    return found
