"""Where a class that is not built in comes from: a package and its version, or files and their digest."""

import hashlib
import importlib.util
from importlib.metadata import Distribution, distribution, packages_distributions
from pathlib import Path

from llbnad.utils.files import file_digest


def requirement(module: str) -> str | None:
    """Return what to tell pip to get `module`, such as my-package==1.2; None if no installed package brings it."""
    found = _distribution(module)
    return None if found is None else f"{found.name}=={found.version}"


def code_version(module: str) -> str:
    """Return a text that changes whenever the code of `module` does.

    The version of the package that installed it; the digest of all Python files beside it where none did, or where the
    package is linked to a working folder (an editable install), whose files change under one version.
    """
    files = _files(module)
    found = _distribution(module)
    installed = {Path(str(found.locate_file(file))).resolve() for file in found.files or ()} if found else set()
    if found is not None and installed.issuperset(files.values()):
        return f"{found.name}=={found.version}"
    digest = hashlib.sha256()
    for name, file in sorted(files.items()):
        digest.update(f"{name} {file_digest(file)}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def _distribution(module: str) -> Distribution | None:
    names = packages_distributions().get(module.partition(".")[0], [])
    return distribution(names[0]) if names else None


def _files(module: str) -> dict[str, Path]:
    """Python files of the module's top-level package by their path inside it, or the one file of a single module."""
    spec = importlib.util.find_spec(module.partition(".")[0])
    if spec is None:
        return {}
    if spec.submodule_search_locations:
        folders = [Path(folder).resolve() for folder in spec.submodule_search_locations]
        return {file.relative_to(folder).as_posix(): file for folder in folders for file in folder.rglob("*.py")}
    return {module: Path(spec.origin).resolve()} if spec.origin else {}
