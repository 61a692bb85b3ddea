"""What can go wrong, as a small hierarchy. Every message states the value, what was expected and the next step."""


def percent_hint(share: float) -> str:
    """Return the end of a message about a share that must lie in (0, 1): it may have been meant in percent."""
    return f": did you mean {share / 100:g}?" if 1 <= share < 100 else ""


class LlbnadError(Exception):
    """Base of every error this package raises on purpose; the command line shows its message alone."""


class ConfigError(LlbnadError):
    """A setting is unknown, impossible or contradicts another one."""


class DataError(LlbnadError):
    """Input data is missing, unreadable or not of the declared form."""


class IdentityError(DataError):
    """Tables that must speak of the same images do not: an id is missing, unknown or doubled."""


class ImageGoneError(DataError):
    """An image or a mask that a manifest names is not there any more."""


class ImageChangedError(IdentityError):
    """An image file has other bytes than when its manifest was made."""


class ManifestMissingError(DataError):
    """There is no manifest where one is expected."""


class ModelMissingError(DataError):
    """There is no model file where one is expected."""


class PluginRefusedError(DataError):
    """A model file names a module that it may not import."""


class SubModelsError(IdentityError):
    """The sub-models did not score exactly the training images."""


class OfflineError(LlbnadError):
    """Something would have to be downloaded, and there is no network."""
