"""Any ViT of timm by its name, e.g. `vit_base_patch14_reg4_dinov2.lvd142m`: DINOv2 with registers, Dinomaly's encoder.

References: Dosovitskiy et al., ICLR 2021 (arXiv 2010.11929); DINOv2: Oquab et al. (arXiv 2304.07193), registers: Darcet
et al. (arXiv 2309.16588), weights Apache-2.0. timm resamples the position embeddings to the input size.
"""

from functools import cache
from typing import Any

from llbnad.config import EncoderConfig
from llbnad.encoders import hub
from llbnad.encoders.base import Recipe
from llbnad.encoders.vit import VitEncoder, check, patch_size
from llbnad.errors import ConfigError
from llbnad.utils.files import file_digest


class TimmVit(VitEncoder):
    """A ViT of timm with weights from the hub (see `llbnad.encoders.hub`)."""

    def __init__(self, config: EncoderConfig, device: str) -> None:
        recipe = self.describe(config)
        super().__init__(recipe, _network(config, str(hub.files(config.name).weights)), device)

    @classmethod
    def describe(cls, config: EncoderConfig) -> Recipe:
        """Return the encoder's recipe, without importing torch.

        Raises:
            ConfigError: the name is not a ViT of timm, or the layers or the input size do not fit it.
            OfflineError: the weights are not on this machine and cannot be downloaded.
        """
        cell = patch_size(config.name)
        check(config, cell)
        found = hub.files(config.name)
        return Recipe(config, _digest(found.weights), found.mean, found.std, cell=cell)


def _network(config: EncoderConfig, weights: str) -> Any:
    import timm

    # `file` replaces timm's own download, which waits 45 seconds on a machine without network
    network: Any = timm.create_model(
        config.name,
        pretrained=True,
        pretrained_cfg_overlay={"file": weights},
        num_classes=0,
        img_size=config.input_size,
    )
    if not hasattr(network, "blocks"):
        raise ConfigError(f"encoder {config.name!r} has no transformer blocks: expected a plain ViT")
    return network


_digest = cache(file_digest)
