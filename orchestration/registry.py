"""The model registry: which detector of a line is in use, which came before, and who was refused.

A line's detectors are versions of the registered model `llbnad-<scenario>`; the alias `champion` names the one in use.
The registry is not the record: data/ and dvc.lock are, and a challenge can be repeated at any time.

    python -m orchestration.registry challenge LINE           compare stage 2's detector with the champion, register it
    python -m orchestration.registry promote LINE [VERSION]   make a version champion (the newest unless told)
    python -m orchestration.registry rollback LINE            back to the champion before
    python -m orchestration.registry list LINE
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from llbnad.errors import LlbnadError
from orchestration.mlflow_runs import ENVIRONMENT, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
MD5, REFUSED, WITHDRAWN, BEFORE = "model.md5", "refused", "withdrawn", "champion.before"  # version tags
LOST = 3  # exit code of a challenge that was judged and refused: Python's own for a crash is 1
UPLOAD_SECONDS = "120"  # a model file is larger than a metric

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)
Line = Annotated[str, typer.Argument(help="Scenario of params.yaml.")]


class RegistryError(LlbnadError):
    """The registry did not answer, or has not what was asked of it."""


def model_name(scenario: str) -> str:
    """The registered model of a scenario."""
    return f"llbnad-{scenario}"


@contextmanager
def registry(scenario: str) -> Iterator["MlflowClient"]:
    """A client; whatever goes wrong with the server becomes one error with the remedy."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", UPLOAD_SECONDS)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
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
                f"{error}: `python -m orchestration.registry list {scenario}` shows which versions there are"
            ) from None
        shown = re.sub(r"//[^/@\s]*@", "//***@", f"MLflow at {uri}: {' '.join(str(error).split())[:500]}")
        raise RegistryError(
            f"{shown}\nThe champion is as it was and nothing is lost: the detector is data/detector/{scenario}/. "
            f"Start the server and run `python -m orchestration.registry challenge {scenario}` or materialise again."
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


def crown(client: "MlflowClient", scenario: str, version: str) -> str:
    """Move the alias to `version` and remember the one before; says what was done."""
    name, before = model_name(scenario), champion_of(client, scenario)
    if before is not None and str(before.version) == version:  # an int where the registry is a database
        return f"version {version} of {name} is champion already"
    wanted = client.get_model_version(name, version)
    if before is not None:
        client.set_model_version_tag(name, version, BEFORE, str(before.version))
    _enthrone(client, wanted)
    return f"version {version} of {name} is champion" + (f", version {before.version} was" if before else "")


def _enthrone(client: "MlflowClient", version: "ModelVersion") -> None:
    for tag in (REFUSED, WITHDRAWN):  # whoever promotes it has decided otherwise
        if tag in version.tags:
            client.delete_model_version_tag(version.name, str(version.version), tag)
    client.set_registered_model_alias(version.name, CHAMPION, str(version.version))


@app.command()
def challenge(line: Line) -> None:
    """Judge and register LINE's newest detector; exit code 3 if it is refused. The champion stays as it is."""
    from orchestration.challenge import challenge as run

    report = run(line)
    for finding in report["findings"]:
        verdict = "ok     " if finding["passed"] else "REFUSED"
        print(f"{verdict}  {finding['name']:14} {finding['observed']}  (expected {finding['expected']})")
    print(f"version {report['version']} of {report['name']}" + (" is new" if report["registered"] else " was there"))
    if not all(finding["passed"] for finding in report["findings"]):
        sys.exit(LOST)


@app.command()
def promote(
    line: Line,
    version: Annotated[str | None, typer.Argument(help="Its number.")] = None,
    unless_withdrawn: Annotated[bool, typer.Option(help="Leave a version alone that was rolled back by hand.")] = False,
) -> None:
    """Make a version champion, whatever the checks said of it."""
    with registry(line) as client:
        known = [str(one.version) for one in versions(client, line)]
        if not known:
            raise RegistryError(f"{model_name(line)} has no version: run `… registry challenge {line}` first")
        if version is not None and version not in known:
            raise RegistryError(f"{model_name(line)} has no version {version}; there are {known}")
        chosen = version or known[0]
        reason = client.get_model_version(model_name(line), chosen).tags.get(WITHDRAWN)
        if unless_withdrawn and reason:
            raise RegistryError(
                f"version {chosen} of {model_name(line)} was {reason}: to promote it all the same: "
                f"python -m orchestration.registry promote {line} {chosen}"
            )
        print(crown(client, line, chosen))


@app.command()
def rollback(line: Line) -> None:
    """Back to the champion before; the one that leaves is not promoted again by a schedule."""
    with registry(line) as client:
        current = champion_of(client, line)
        before = current.tags.get(BEFORE) if current else None
        if current is None or before is None or before == str(current.version):
            raise RegistryError(f"{model_name(line)} has no champion before the present one: `… registry list {line}`")
        _enthrone(client, client.get_model_version(current.name, before))
        client.set_model_version_tag(current.name, str(current.version), WITHDRAWN, "rolled back by hand")
        print(f"version {before} of {current.name} is champion again, version {current.version} was rolled back")


@app.command("list")
def show(line: Line) -> None:
    """All versions of LINE's detector, newest first."""
    table = Table(title=model_name(line))
    for heading in ("version", "alias", "model md5", "git commit", "note"):
        table.add_column(heading)
    with registry(line) as client:
        for one in versions(client, line):
            tags, aliases = one.tags, client.get_model_version(one.name, one.version).aliases
            note = tags.get(WITHDRAWN) or (f"refused: {tags[REFUSED]}" if REFUSED in tags else "")
            commit, dirty, _ = tags.get("git.commit", "").partition("-dirty")
            table.add_row(str(one.version), ", ".join(aliases), tags.get(MD5, "")[:8], commit[:8] + dirty, note)
    Console(highlight=False).print(table)


def model_file(uri: str) -> Path:
    """The safetensors file of a path, or of an MLflow address such as models:/llbnad-line@champion."""
    if not uri.startswith(("models:/", "runs:/", "mlflow-artifacts:/")):
        return Path(uri)
    with registry(uri.partition("/llbnad-")[2].partition("@")[0].partition("/")[0] or "…"):
        import mlflow

        folder = Path(mlflow.artifacts.download_artifacts(f"{uri}/artifacts"))
    (found,) = folder.glob("*.safetensors")
    return found


def main() -> None:
    """Entry point: trouble is one clear line and exit code 2."""
    try:
        app()
    except LlbnadError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
