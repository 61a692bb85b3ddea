"""The description inside a model file, and the modules outside this package that the file needs. None is imported."""

import importlib.util
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llbnad.detectors import DETECTORS
from llbnad.encoders import ENCODERS, registered
from llbnad.errors import DataError, ModelMissingError, PluginRefusedError
from llbnad.utils.hashing import digest_of

if TYPE_CHECKING:
    import torch

FORMAT = "llbnad model 2"
WINDOW_FORMAT = "llbnad model 3"  # as 2, with the window of images above 8 bits, which an older release would ignore
VIEW_FORMAT = "llbnad model 4"  # as 2 or 3, with a view or a region, which an older release would not know
# 1: a threshold without bound and unsure scores, which it keeps
READABLE = ("llbnad model 1", FORMAT, WINDOW_FORMAT, VIEW_FORMAT)
KEYS = frozenset(
    {"format", "encoder", "encoder_fingerprint", "detector", "digest", "threshold", "pixel_threshold", "window",
     "region"}
)  # fmt: skip


def format_of(view: str, window: object, region: object) -> str:
    """Return the format of a model file: the oldest that can hold its view, window and region (None without)."""
    if view != "squeeze" or region is not None:
        return VIEW_FORMAT
    return FORMAT if window is None else WINDOW_FORMAT


@contextmanager
def opened(path: Path, framework: str = "np", device: str = "cpu") -> Iterator[tuple[Any, dict[str, Any]]]:
    """Open a model file. Yield its tensors, read when asked for, and its description.

    The description holds format, encoder, encoder_fingerprint, detector, digest and, if there is one, threshold,
    pixel_threshold, window and region.

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
            named = content.get("format") if isinstance(content, dict) else None
            if named not in READABLE:
                given = "it names no format" if named is None else f"its format is {named!r:.100}"
                raise DataError(f"{path} is not a model of this release: {given}; expected {' or '.join(READABLE)}")
            if unknown := sorted(content.keys() - KEYS):  # a damaged name, such as that of the digest
                raise DataError(f"{path} is damaged: its description holds {unknown[0]!r}; expected {sorted(KEYS)}")
            yield stored, content
    except (SafetensorError, RecursionError, ValueError) as error:  # not safetensors, or its description is not JSON
        raise DataError(f"{path} is not a model file ({error}): expected the safetensors that training wrote") from None


def content_digest(content: Mapping[str, Any], tensors: Mapping[str, "torch.Tensor"]) -> str:
    """Return the SHA-256 of a description, without its own `digest`, and of all tensors."""
    import torch

    told = {key: value for key, value in content.items() if key != "digest"}
    parts = (
        (f"{name} {tensor.dtype} {list(tensor.shape)}", tensor.cpu().contiguous().reshape(-1).view(torch.uint8))
        for name, tensor in sorted(tensors.items())
    )
    return digest_of(json.dumps(told, sort_keys=True), ((name, values.numpy().data) for name, values in parts))


def refuse_damaged(path: Path, content: Mapping[str, Any], tensors: Mapping[str, "torch.Tensor"]) -> None:
    """Refuse a file whose content is not what was saved. Of files of release 0.1, without a digest, look at the values.

    Raises:
        DataError: the digest is another one; without a digest, a tensor is empty or holds a value that is not finite.
    """
    back = "restore the file (`dvc checkout`, a copy), or train again"
    if "digest" in content:
        if content["digest"] != content_digest(content, tensors):
            raise DataError(
                f"{path} is damaged: its content does not have the digest {content['digest']!s:.12}: {back}"
            )
        return
    for name, tensor in sorted(tensors.items()):
        if not tensor.numel():
            raise DataError(f"{path} is damaged: its tensor {name} is empty: {back}")
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise DataError(f"{path} is damaged: its tensor {name} holds values that are not finite: {back}")


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
