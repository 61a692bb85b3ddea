"""params.yaml of a slice: one scenario and its data set. Comments, anchors and the order of keys stay."""

from typing import Any

from ruamel.yaml.comments import CommentedMap

from llbnad.errors import ConfigError
from orchestration.pipeline.round_trip import read_round_trip, write_round_trip


def slice_params(text: str, scenario: str) -> tuple[str, dict[str, Any]]:
    """Take the other scenarios and data sets out of params.yaml.

    Args:
        text: the whole params.yaml.
        scenario: the scenario that stays.

    Returns:
        The text of the slice's params.yaml, and the entry of its data set.

    Raises:
        ConfigError: there is no such scenario, or no such data set.
    """
    content = read_round_trip(text)
    dataset = _keep_one(content, "scenarios", scenario)["dataset"]
    own = _keep_one(content, "datasets", dataset)
    return write_round_trip(content), {"name": str(dataset), **own}


def _keep_one(content: CommentedMap, section: str, wanted: str) -> Any:
    """Delete all entries of a section but one, and return that one."""
    entries = content[section]
    if wanted not in entries:
        raise ConfigError(f"params.yaml: {section} has no {wanted!r}; it has {sorted(map(str, entries))}")
    for name in [name for name in entries if name != wanted]:
        del entries[name]
    return entries[wanted]
