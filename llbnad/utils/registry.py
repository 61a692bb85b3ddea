"""Names to classes, imported only when asked for: a new detector or policy is one file and one line in its registry."""

import importlib
from collections.abc import Mapping
from typing import Any


class Registry:
    """Classes of one kind by name.

    Args:
        kind: what the classes are, for error messages.
        places: `module:Class` by name; importing a module may be expensive, so nothing is imported before `get`.
    """

    def __init__(self, kind: str, places: Mapping[str, str]) -> None:
        self.kind = kind
        self._places = dict(places)

    @property
    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._places)

    def get(self, name: object) -> Any:
        """The class called `name`; ValueError lists what exists."""
        if not isinstance(name, str) or name not in self._places:
            raise ValueError(f"unknown {self.kind} {name!r}; there are {self.names}")
        module, _, attribute = self._places[name].partition(":")
        return getattr(importlib.import_module(module), attribute)
