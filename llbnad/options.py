"""The options of a command: its data set, and its settings.

Options override a file of settings, and --set overrides both.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llbnad.config import Dataset, Files, parse
from llbnad.errors import ConfigError
from llbnad.scenario import ScenarioSettings
from llbnad.utils.yaml_files import parse_yaml, read_yaml

NAMED = {
    "detector": "name",
    "sub_model_detector": "name",
    "encoder": "name",
    "selection": "policy",
}  # setting: its name


def merged(config: Path | None, options: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Merge settings. A file overrides the default classes, options override the file, --set overrides everything.

    Args:
        config: YAML or JSON file with keys of `ScenarioSettings`.
        options: values by dotted key; None for an option that was not given.
        assignments: texts KEY=VALUE, with a dotted key and a value in YAML.

    Raises:
        ConfigError: the file or an assignment is missing or malformed.
    """
    defaults = ScenarioSettings()
    found: dict[str, Any] = {"detector": defaults.detector.name, "selection": defaults.selection.policy}
    found |= {} if config is None else _read(config)
    for key, name in NAMED.items():
        if isinstance(found.get(key), str):
            found[key] = {name: found[key]}
        chosen = options.get(f"{key}.{name}")
        if chosen is not None and not (isinstance(found[key], dict) and found[key].get(name) == chosen):
            found[key] = {}  # settings of another class do not fit this class
    for key, value in options.items():
        if value is not None:
            _put(found, key, value, f"--{key}")
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"--set {assignment!r}: expected KEY=VALUE, e.g. detector.memory_size=4096")
        try:
            value = parse_yaml(text, key)
        except ConfigError:
            raise ConfigError(f"--set {assignment!r}: {text!r} is not a YAML value") from None
        _put(found, key, value, f"--set {assignment!r}")
    return found


def source_of(
    images: Path | None, source: str | None, root: Path | None, category: str | None, usual: str
) -> tuple[str, Path | None, str]:
    """Return kind, root and product of the data set that a command is given.

    Args:
        images: a folder or a file that names images, which stands for the options on kind and root.
        source: the kind; None if the option is not given.
        root: the root; None if the option is not given.
        category: the product; None if the option is not given.
        usual: the kind where nothing is given.

    Raises:
        ConfigError: `images` are given beside a kind or a root.
        DataError: `images` are neither a folder nor such a file.
    """
    if images is None:
        return source or usual, root, "mono" if category is None else category
    if source is not None or root is not None:
        raise ConfigError(f"{images} is the data set already: leave out --source and --root, or leave it out")
    from llbnad.data.sources.given import kind_and_name

    kind, name = kind_and_name(images)
    return kind, images, name if category is None else category


def dataset_of(
    source: str,
    root: Path | None,
    category: str,
    variant: str,
    image_dir: str,
    intensity: str,
    pages: str,
    max_pixels: int,
    where: str,
) -> Dataset:
    """Return the settings of the data set that the options of a command name. `where` begins the error message.

    The root of a manifest is its file, or the folder that holds a `manifest.csv`.

    Raises:
        ConfigError: the root is missing, a value is impossible, or an option on files goes with images that have none.
    """
    content: dict[str, Any] = {"source": source, "category": category}
    if source == "real_iad":
        content |= {"variant": variant, "image_dir": image_dir}
    if source == "elpv":
        usual = Files()
        given = {
            "--intensity": (intensity, usual.intensity),
            "--pages": (pages, usual.pages),
            "--max-pixels": (max_pixels, usual.max_pixels),
        }
        for option, (value, default) in given.items():
            if value != default:
                raise ConfigError(
                    f"{option} {value} has no effect on source elpv, whose images come with a package: leave it out, "
                    "or name another --source"
                )
    if source != "elpv":
        if root is None:
            raise ConfigError(f"--root is missing: the folder of the {source} data set")
        content |= {"root": str(root), "intensity": _window(intensity), "pages": pages, "max_pixels": max_pixels}
    if source == "manifest" and root is not None and not root.is_dir():
        content |= {"root": str(root.parent), "file": root.name}
    dataset: Dataset = parse(Dataset, content, where)
    return dataset


SIZE_EXPECTED = "width x height in pixels, such as 640x480"


def two_numbers(text: str, option: str, expected: str) -> tuple[int, int]:
    """Return the two numbers of a text such as 2x3.

    Args:
        text: what was given.
        option: the name of the option, for the error.
        expected: what it should be.

    Raises:
        ConfigError: the text is no two whole numbers.
    """
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise ConfigError(f"{option} {text!r}: expected {expected}")
    return int(parts[0]), int(parts[1])


def view_options(
    view: str | None, tiles: str | None, overlap: float | None, region: Path | None, border: float | None
) -> dict[str, Any]:
    """Return the settings that the options on view and region name, by dotted key; None for those not given.

    Raises:
        ConfigError: the tiles are no two numbers, the file of the region is no mapping, or options contradict.
    """
    if (tiles is not None or overlap is not None) and view not in (None, "tiles"):
        raise ConfigError(f"--tiles and --overlap go with --view tiles, got --view {view}")
    grid = None if tiles is None else list(two_numbers(tiles, "--tiles", "rows x columns, such as 2x3"))
    content: Any = None
    if region is not None and region.suffix.lower() in (".json", ".yaml", ".yml"):
        content = read_yaml(region)
        if not isinstance(content, dict):
            raise ConfigError(
                f"--region {region} holds {type(content).__name__}; expected a mapping, such as polygon: …"
            )
    elif region is not None:
        content = {"mask": str(region)}
    if border is not None:
        content = (content or {}) | {"border": border}
    return {
        "encoder.view": "tiles" if grid is not None or overlap is not None else view,
        "encoder.tiles": grid,
        "encoder.overlap": overlap,
        "region": content,
    }


def _window(intensity: str) -> str | list[float]:
    """Return a window that is given as `LOW,HIGH` as two numbers; leave other texts to the check of the setting."""
    edges = intensity.strip("[] ").split(",")
    try:
        return [float(edge) for edge in edges] if len(edges) > 1 else intensity
    except ValueError:
        return intensity


def _read(config: Path) -> dict[str, Any]:
    try:
        content = read_yaml(config)
    except ConfigError as error:
        raise ConfigError(f"--config {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"--config {config} holds {type(content).__name__}; expected a mapping, such as seed: 1")
    return content


def _put(content: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Set the dotted `key` of `content` to `value`. `where` begins the error message."""
    *parents, last = key.split(".")
    node = content
    for parent in parents:
        if node.get(parent) is None:
            node[parent] = {}
        node = node[parent]
        if not isinstance(node, dict):
            raise ConfigError(f"{where}: {parent} holds a value, not settings")
    node[last] = value
