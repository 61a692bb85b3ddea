"""The names below the tiles of a contact sheet: short, and different where the images are.

Cameras write long names that begin and end alike. Cutting such a name in the middle hides what tells images apart.
"""

from collections.abc import Callable, Sequence
from itertools import product

from llbnad.data.names import shown_name

LONGEST = 28  # characters that fit below a tile
WORTH_SAYING = 6  # characters that names have in common; fewer, such as a suffix, stay where they are


def short_names(paths: Sequence[str], longest: int = LONGEST) -> tuple[list[str], str]:
    """Return the names to show side by side, each at most `longest` characters, so that they differ where images do.

    Where a name is longer, the beginning and the end that all have in common are left out; what is still longer is cut
    where the cut leaves the names different.

    Args:
        paths: paths of the images; a path may be there several times.
        longest: most characters of a name.

    Returns:
        one name per path, and what was left out of all, in words; empty if nothing was.
    """
    names = [shown_name(path) for path in paths]
    if all(len(name) <= longest for name in names):
        return names, ""
    different = sorted(set(names))
    best: tuple[dict[str, str], str] = ({}, "")
    for (start, end), cut in product((_common(different, True), _common(different, False)), CUTS):
        bare = {name: name[start : len(name) - end] for name in different}
        short = {name: one if len(one) <= longest else cut(one, longest) for name, one in bare.items()}
        if len(set(short.values())) > len(set(best[0].values())):
            best = short, _left_out(different[0], start, end)
    return [best[0][name] for name in names], best[1]


def _cut_middle(name: str, longest: int) -> str:
    end = longest // 2
    return f"{name[: longest - end - 1]}…{name[-end:]}"


CUTS: tuple[Callable[[str, int], str], ...] = (
    _cut_middle,
    lambda name, longest: f"…{name[1 - longest :]}",
    lambda name, longest: f"{name[: longest - 1]}…",
)


def _common(names: Sequence[str], whole_words: bool) -> tuple[int, int]:
    """Return how many characters all names have in common at their beginning and end; some of each name is left.

    With `whole_words`, no word and no number is split.
    """
    if len(names) < 2:
        return 0, 0
    start = _common_start(names, whole_words)
    backwards = [name[start:][::-1] for name in names]
    end = max(0, min(_common_start(backwards, whole_words), min(map(len, backwards)) - 1))
    told = all(any(map(str.isalnum, name[start : len(name) - end])) for name in names)
    return (start if start >= WORTH_SAYING else 0), (end if told and end >= WORTH_SAYING else 0)


def _common_start(names: Sequence[str], whole_words: bool) -> int:
    first, last = min(names), max(names)  # all others lie between them
    shortest = min(len(first), len(last))
    count = next((place for place in range(shortest) if first[place] != last[place]), shortest)
    while whole_words and count and any(_splits(name, count) for name in names):
        count -= 1
    return count


def _splits(name: str, place: int) -> bool:
    """Return whether a word or a number goes on from one side of `place` to the other."""
    around = name[place - 1 : place + 1]
    return len(around) == 2 and (around.isdigit() or around.isalpha())


def _left_out(name: str, start: int, end: int) -> str:
    parts = [f"begin with {name[:start]}"] if start else []
    parts += [f"end with {name[len(name) - end :]}"] if end else []
    return f"all names {' and '.join(parts)}" if parts else ""
