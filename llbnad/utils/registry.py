"""Names to classes, imported only when asked for.

A name is built in (one line in its registry), offered by an installed package as an entry point, or the place of any
class that Python finds, `module:Class`. A built-in name cannot be taken by a package.
"""

import importlib
import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

PLACE = re.compile(r"[^\W\d]\w*(\.\w+)*:\w+")


class Registry:
    """Classes of one kind by name.

    Args:
        kind: what the classes are, for error messages.
        places: `module:Class` by built-in name.
        group: of the entry points by which packages offer names.
        problem: says why a class that is not built in cannot be used; nothing if it can.
    """

    def __init__(self, kind: str, places: Mapping[str, str], group: str, problem: Callable[[Any], str]) -> None:
        self.kind, self.group = kind, group
        self._places = dict(places)
        self._problem = problem

    @property
    def names(self) -> list[str]:
        """The built-in names, sorted."""
        return sorted(self._places)

    def get(self, name: object) -> Any:
        """Import and return the class called `name`.

        Raises:
            ValueError: there is none of that name, its module is missing, or it lacks what this kind needs.
        """
        if isinstance(name, str) and name in self._places:
            module, _, attribute = self._places[name].partition(":")
            return getattr(importlib.import_module(module), attribute)
        place = self._plugin_place(name)
        found = self._imported(name, *place.split(":"))
        problem = self._problem(found) if isinstance(found, type) else "it is not a class"
        if problem:
            raise ValueError(f"{self.kind} {name!r} cannot be used: {problem}")
        return found

    def plugin_module(self, name: str) -> str:
        """Return the module of the class called `name`; nothing for a built-in one. Imports nothing."""
        return "" if name in self._places else self._plugin_place(name).partition(":")[0]

    def _plugin_place(self, name: object) -> str:
        if isinstance(name, str) and ":" in name:
            if not PLACE.fullmatch(name):
                raise ValueError(f"{self.kind} {name!r}: expected module:Class, such as my_package.parts:Mine")
            return name
        offered = _offered(self.group)
        found = [point for point in offered if point.name == name]
        if not found:
            names = sorted({*self._places, *(point.name for point in offered)})
            raise ValueError(f"unknown {self.kind} {name!r}; there are {names}, and module:Class for one of your own")
        places = {f"{point.module}:{point.attr}": point for point in found}
        if len(places) > 1:
            said = " and ".join(f"{_package(point)} ({place})" for place, point in places.items())
            raise ValueError(f"{self.kind} {name!r} is offered by {said}: write module:Class, or uninstall one of them")
        return next(iter(places))

    def _imported(self, name: object, module: str, attribute: str) -> Any:
        try:
            imported = importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise ValueError(
                f"{self.kind} {name!r}: there is no module {error.name!r}: install the package that brings it, "
                "or put its folder on PYTHONPATH"
            ) from None
        if not hasattr(imported, attribute):
            raise ValueError(f"{self.kind} {name!r}: the module {module} has no {attribute!r}")
        return getattr(imported, attribute)


def lacking(found: type, *methods: str) -> str:
    """Say which of `methods` a class does not have; nothing if it has all."""
    missing = [name for name in methods if not callable(getattr(found, name, None))]
    return f"{found.__qualname__} has no method {', '.join(missing)}" if missing else ""


@cache
def _offered(group: str) -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=group))


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "a package without metadata"
