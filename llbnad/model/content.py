"""The description inside a model file, and the modules outside this package that the file needs. None is imported."""

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

FORMAT = "llbnad model 2"
READABLE = ("llbnad model 1", FORMAT)  # 1: a threshold without bound and unsure scores, which it keeps


@contextmanager
def opened(path: Path, framework: str = "np", device: str = "cpu") -> Iterator[tuple[Any, dict[str, Any]]]:
    """Open a model file. Yield its tensors, read when asked for, and its description.

    The description holds format, encoder, encoder_fingerprint, detector and, if there is one, threshold.

    Args:
        path: the file.
        framework: framework of the tensors: np for NumPy, pt for torch.
        device: device of torch's tensors.

    Raises:
        ModelMissingError: the file does not exist.
        DataError: the file is not a model file.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ModelMissingError(f"no model at {path}: `llbnad run` writes one, and so does `llbnad.fit(...).save`")
    try:
        with safe_open(path, framework=framework, device=device) as stored:
            content = json.loads((stored.metadata() or {}).get("llbnad", "{}"))
            if content.get("format") not in READABLE:
                given = f"its format is {content['format']!r}" if "format" in content else "it names no format"
                raise DataError(f"{path} is not a model of this release: {given}; expected {' or '.join(READABLE)}")
            yield stored, content
    except (SafetensorError, json.JSONDecodeError) as error:
        raise DataError(f"{path} is not a model file ({error}): expected the safetensors that training wrote") from None


def needed_modules(content: Mapping[str, Any]) -> dict[str, str]:
    """Return the modules of encoder and detector that are not built in, by their names in the file.

    Raises:
        ValueError: a name is unknown.
    """
    encoder, detector = content["encoder"]["name"], content["detector"]["name"]
    modules = {encoder: ENCODERS.plugin_module(registered(encoder)), detector: DETECTORS.plugin_module(detector)}
    return {name: module for name, module in modules.items() if module}


def refuse_modules(path: Path, content: Mapping[str, Any]) -> None:
    """Refuse a file that names a `module:Class` whose module is installed but not imported yet.

    Raises:
        PluginRefusedError: the file names such a module.
        ValueError: a name is unknown.
    """
    for name, module in needed_modules(content).items():
        if ":" in name and module not in sys.modules and _is_here(module.partition(".")[0]):
            raise PluginRefusedError(
                f"{path} names {name}: loading it imports the module {module}, which runs that module's code. If you "
                "trust the file, import the module first or allow it: `--plugins` of `llbnad`, plugins=True in Python"
            )


def _is_here(package: str) -> bool:
    """Return whether Python finds a top-level module, without importing it. Another error reports a missing module."""
    return importlib.util.find_spec(package) is not None
