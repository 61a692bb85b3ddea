"""params.yaml of a slice: one scenario and its data set. Comments, anchors and the order of keys stay."""

import io
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from llbnad.errors import ConfigError


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
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 2**20  # do not wrap lines that people wrote
    yaml.representer.add_representer(type(None), _null)
    content = yaml.load(text)
    dataset = _keep_one(content, "scenarios", scenario)["dataset"]
    own = _keep_one(content, "datasets", dataset)
    stream = io.StringIO()
    yaml.dump(content, stream)
    return stream.getvalue(), {"name": str(dataset), **own}


def _keep_one(content: CommentedMap, section: str, wanted: str) -> Any:
    """Delete all entries of a section but one, and return that one."""
    entries = content[section]
    if wanted not in entries:
        raise ConfigError(f"params.yaml: {section} has no {wanted!r}; it has {sorted(map(str, entries))}")
    for name in [name for name in entries if name != wanted]:
        del entries[name]
    return entries[wanted]


def _null(representer: Any, _: None) -> Any:
    """Write `null` as people write it. ruamel would leave the value out."""
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")
