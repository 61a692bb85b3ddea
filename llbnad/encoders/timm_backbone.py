"""EfficientNet-Lite2 under a name of its own in timm's registry, with installed weights instead of a download.

Libraries that build their backbone with timm's `create_model(name, pretrained=True)` can then run without network.
"""

from typing import Any


def llbnad_efficientnet_lite2(pretrained: bool = False, **arguments: Any) -> Any:
    """Return `tf_efficientnet_lite2`, whole or with features_only. Its input values lie in [-1, 1].

    Args:
        pretrained: load the installed weights; otherwise the weights are random.
        arguments: passed on to timm's `create_model`.

    Raises:
        RuntimeError: a tensor of the network got no weights.
    """
    import timm

    from llbnad.encoders.efficientnet_lite import trained_network

    arguments.pop("pretrained_cfg", None)
    network = timm.create_model("tf_efficientnet_lite2", pretrained=False, **arguments)
    if pretrained:
        # strict=False: features_only leaves the head out, so some weights find no place
        missing = network.load_state_dict(trained_network().state_dict(), strict=False).missing_keys
        if missing:
            raise RuntimeError(f"timm's features_only has tensors without weights, first {missing[0]}")
    return network


def register() -> None:
    """Add the network to timm's registry, unless it is there already."""
    from timm.models import is_model, register_model

    if not is_model(llbnad_efficientnet_lite2.__name__):
        register_model(llbnad_efficientnet_lite2)
