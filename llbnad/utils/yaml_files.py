"""Settings files in YAML (JSON is YAML as well), read so that no file hangs, and no slip passes unnoticed."""

from pathlib import Path
from typing import Any

import yaml

from llbnad.errors import ConfigError

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, ten times as fast, where PyYAML was built with it
MERGE = "tag:yaml.org,2002:merge"  # of the key <<
DEEPEST = 100  # levels of nesting
MOST_NODES = 1_000_000  # values of a file once its aliases are written out; more is no file of settings


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file.

    Raises:
        ConfigError: the file is missing, a folder or a pipe, not UTF-8 or not YAML, names a key twice, or writes out to
            more than `MOST_NODES` values.
    """
    if not path.is_file():
        kind = "is no file" if path.exists() else "not found"
        raise ConfigError(f"{path} {kind}: expected a YAML file of settings")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> Any:
    """Return the content of a text in YAML; `where` begins the error message.

    Raises:
        ConfigError: the text is not YAML, names a key twice, or writes out to more than `MOST_NODES` values,
            or is nested more deeply than `DEEPEST`.
    """
    try:
        try:
            return _content(text, where, LOADER)
        except yaml.YAMLError:
            return _content(text, where, yaml.SafeLoader)  # its errors name the value and show the line
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is not valid YAML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{where} is nested too deeply: expected a few levels of settings") from None
    except (ArithmeticError, AttributeError, LookupError, ValueError) as error:  # a value that Python cannot hold
        raise ConfigError(f"{where} is not valid YAML: {error}") from None


def _content(text: str, where: str, kind: Any) -> Any:
    if _depth(text, kind) > DEEPEST:  # asked first: libyaml's composer calls itself, and a crash is no error message
        raise RecursionError
    loader = kind(text)
    node = loader.get_single_node()
    if node is None:
        return None
    if _size(node, {}, set()) > MOST_NODES:
        raise ConfigError(f"{where} writes out to more than {MOST_NODES:,} values: its anchors multiply each other")
    return loader.construct_document(node)


def _depth(text: str, kind: Any) -> int:
    """Return the levels of nesting of a text, without building them.

    Raises:
        YAMLError: the text is not YAML.
    """
    depth = deepest = 0
    for event in yaml.parse(text, Loader=kind):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        deepest = max(deepest, depth)
    return deepest


def _size(node: yaml.Node, known: dict[int, int], open_nodes: set[int]) -> int:
    """Return the number of nodes below `node`, aliases written out.

    Raises:
        YAMLError: a node contains itself, or a mapping names a key twice; PyYAML would take the last one in silence.
    """
    if id(node) in known:
        return known[id(node)]
    if id(node) in open_nodes:
        raise yaml.YAMLError(f"a value contains itself\n{node.start_mark}")
    open_nodes.add(id(node))
    if isinstance(node, yaml.MappingNode):
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.tag != MERGE]
        seen: set[tuple[str, str]] = set()
        for key in keys:
            if (key.tag, key.value) in seen:
                raise yaml.YAMLError(f"the key {key.value} is there twice\n{key.start_mark}")
            seen.add((key.tag, key.value))
        size = 1 + sum(_size(one, known, open_nodes) for pair in node.value for one in pair)
    elif isinstance(node, yaml.SequenceNode):
        size = 1 + sum(_size(one, known, open_nodes) for one in node.value)
    else:
        size = 1
    open_nodes.remove(id(node))
    known[id(node)] = size
    return size
