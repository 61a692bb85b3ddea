"""EfficientNet-Lite2 under a name of its own in timm's registry, where `pretrained` means our weights, not a download.

Libraries that build their backbone by timm's `create_model(name, pretrained=True)` so run without network.
"""

from typing import Any


def llbnad_efficientnet_lite2(pretrained: bool = False, **arguments: Any) -> Any:
    """`tf_efficientnet_lite2`, whole or with features_only; random without `pretrained`. Takes values in [-1, 1]."""
    import timm

    from llbnad.encoders.efficientnet_lite import trained_network

    arguments.pop("pretrained_cfg", None)
    network = timm.create_model("tf_efficientnet_lite2", pretrained=False, **arguments)
    if pretrained:
        # features_only leaves the head out, so more is given than taken
        missing = network.load_state_dict(trained_network().state_dict(), strict=False).missing_keys
        if missing:
            raise RuntimeError(f"timm's features_only has tensors without weights, first {missing[0]}")
    return network


def register() -> None:
    """Tell timm of it; more than once does no harm."""
    from timm.models import is_model, register_model

    if not is_model(llbnad_efficientnet_lite2.__name__):
        register_model(llbnad_efficientnet_lite2)
