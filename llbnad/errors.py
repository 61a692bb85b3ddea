"""What can go wrong, as a small hierarchy. Every message states the value, what was expected and the next step."""


class LlbnadError(Exception):
    """Base of every error this package raises on purpose; the command line shows its message alone."""


class ConfigError(LlbnadError):
    """A setting is unknown, impossible or contradicts another one."""


class DataError(LlbnadError):
    """Input data is missing, unreadable or not of the declared form."""


class IdentityError(DataError):
    """Tables that must speak of the same images do not: an id is missing, unknown or doubled."""


class OfflineError(LlbnadError):
    """Something would have to be downloaded, and there is no network."""
