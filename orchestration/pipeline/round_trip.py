"""YAML that people wrote, changed by a program: comments, anchors, quotes and the order of keys stay."""

import io
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap


def read_round_trip(text: str) -> CommentedMap:
    """Return the content of a YAML text, with all that `write_round_trip` needs to write it as it was."""
    return _yaml().load(text)


def write_round_trip(content: CommentedMap) -> str:
    """Return the YAML text of a content that `read_round_trip` gave."""
    stream = io.StringIO()
    _yaml().dump(content, stream)
    return stream.getvalue()


def _yaml() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 2**20  # do not wrap lines that people wrote
    yaml.representer.add_representer(type(None), _null)
    return yaml


def _null(representer: Any, _: None) -> Any:
    """Write `null` as people write it. ruamel would leave the value out."""
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")
