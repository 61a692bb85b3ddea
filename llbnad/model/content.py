"""What a model file says of itself, and which modules beside this package it needs. Runs no code that it names."""

import importlib.util
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llbnad.detectors import DETECTORS
from llbnad.encoders import ENCODERS, registered
from llbnad.errors import DataError, ModelMissingError, PluginRefusedError

FORMAT = "llbnad model 1"


@contextmanager
def opened(path: Path, framework: str = "np", device: str = "cpu") -> Iterator[tuple[Any, dict[str, Any]]]:
    """Open a model file: its tensors, read when asked for, and format, encoder, fingerprint, detector, threshold.

    Args:
        path: the file.
        framework: of the tensors: np, or pt for torch.
        device: of torch's tensors.

    Raises:
        ModelMissingError: there is no such file.
        DataError: it is not ours.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ModelMissingError(f"no model at {path}: `llbnad run` writes one, and so does `llbnad.fit(...).save`")
    try:
        with safe_open(path, framework=framework, device=device) as stored:
            content = json.loads((stored.metadata() or {}).get("llbnad", "{}"))
            if content.get("format") != FORMAT:
                raise DataError(f"{path} is a safetensors file, but not {FORMAT!r}")
            yield stored, content
    except (SafetensorError, json.JSONDecodeError) as error:
        raise DataError(f"{path} is not a model file ({error}): expected the safetensors that training wrote") from None


def needed_modules(content: Mapping[str, Any]) -> dict[str, str]:
    """Return the modules of encoder and detector that are not built in, by the names that stand in the file.

    Raises:
        ValueError: a name is unknown.
    """
    encoder, detector = content["encoder"]["name"], content["detector"]["name"]
    modules = {encoder: ENCODERS.plugin_module(registered(encoder)), detector: DETECTORS.plugin_module(detector)}
    return {name: module for name, module in modules.items() if module}


def refuse_modules(path: Path, content: Mapping[str, Any]) -> None:
    """Refuse a file that names, as `module:Class`, a module which is here and not imported yet.

    Raises:
        PluginRefusedError: it does.
        ValueError: a name is unknown.
    """
    for name, module in needed_modules(content).items():
        if ":" in name and module not in sys.modules and _is_here(module.partition(".")[0]):
            raise PluginRefusedError(
                f"{path} names {name}: loading it imports the module {module}, which runs that module's code. If you "
                "trust the file, import the module first or allow it: `--plugins` of `llbnad`, plugins=True in Python"
            )


def _is_here(package: str) -> bool:
    """Whether Python finds a top-level module; without importing it. One that is not here is said to be missing."""
    return importlib.util.find_spec(package) is not None
