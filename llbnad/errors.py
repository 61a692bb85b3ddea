"""The errors of this package. Every message states the value, the expectation and the next step."""


def printable(text: str) -> str:
    """Return a text whose bytes that are not UTF-8, as names of files may hold, are written out."""
    return text.encode(errors="backslashreplace").decode()


def percent_hint(share: float) -> str:
    """Return the end of a message about a share that must lie in (0, 1), if `share` may have been meant in percent."""
    return f": did you mean {share / 100:g}?" if 1 <= share < 100 else ""


class LlbnadError(Exception):
    """Base of all errors that this package raises on purpose. The command line shows only the message."""


class ConfigError(LlbnadError):
    """A setting is unknown, impossible or contradicts another one."""


class DataError(LlbnadError):
    """Input data is missing, unreadable or not of the declared form."""


class IdentityError(DataError):
    """Tables that must hold the same images do not: an image id is missing, unknown or occurs twice."""


class NotAnImageError(DataError):
    """A file is of no format that images have."""


class PagesError(DataError):
    """A file holds several pages and nobody said which of them are images, or lacks the page that is asked for."""


class TooFewImagesError(DataError):
    """A detector needs more training images."""


class ImageGoneError(DataError):
    """The file of an image or a mask that a manifest names does not exist any more."""


class ImageChangedError(IdentityError):
    """The bytes of an image file have changed since its manifest was made."""


class ManifestMissingError(DataError):
    """A manifest file does not exist."""


class ModelMissingError(DataError):
    """A model file does not exist."""


class PluginRefusedError(DataError):
    """A model file names a module that it may not import."""


class SubModelsError(IdentityError):
    """The sub-models did not score exactly the training images."""


class OfflineError(LlbnadError):
    """A download is needed, but it is not allowed or there is no network."""
