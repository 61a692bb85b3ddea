"""`python -m orchestration settings`: print the type, default and meaning of every setting as Markdown tables.

The tables are read from the config classes, beginning at `Params`. The meaning of a setting is its pydantic
description; without one, the comment beside the field or the first sentence of the comment above it; without any, the
first line of the docstring of the class that the field holds. `docs/methods.md` keeps a copy between two marks, which
`--write` renews.
"""

import ast
import inspect
import io
import json
import textwrap
import tokenize
import types
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from llbnad.config import Config, DetectorConfig, SelectionPolicy
from llbnad.detectors import DETECTORS
from llbnad.errors import ConfigError
from llbnad.policies import POLICIES
from orchestration.pipeline.params import Params

PAGE = Path("docs/methods.md")
BEGIN, END = "<!-- settings: begin -->", "<!-- settings: end -->"
PLAIN = {int: "integer", float: "number", str: "text", bool: "true or false", Any: "anything"}
CHOOSERS = ("source", "protocol", "name", "policy")  # keys whose value picks the class; titles show that value
MEANINGS = {  # of fields without a comment or description of their own
    "Params.datasets": "image sets by name; each is read once, whatever uses it",
    "ElpvDataset.category": "kind of solar cell: mono- or poly-crystalline",
    "RealIadDataset.root": "folder that holds the JSON set beside the images",
    "RealIadDataset.category": "name of a product: of its JSON file and its image folder",
    "ImageFolderDataset.root": "folder of images, with subfolders",
    "ImageFolderDataset.category": "name of the product, for tables and pictures",
    "ManifestDataset.root": "folder that holds the manifest file and its images; DVC follows it",
    "ManifestDataset.category": "name of the product, for tables and pictures",
    "ScenarioSettings.aggregation": "how an image's scores by all sub-models become one (see above)",
    "ScenarioSettings.comparators": "other training sets that detectors are trained on, to compare with",
    "Scenario.dataset": "name of an entry of `datasets`",
    "InjectedNoise.protocol": "anomalous samples replace normal ones, or are added to them",
    "EncoderConfig.name": "name of an encoder, or of one of timm's ViTs (`vit_…`)",
}


def settings_table() -> str:
    """Return one Markdown table per settings class, each under a title, in the order of params.yaml."""
    return "\n\n".join(f"**{_title(kind, paths)}**\n\n{_table(kind)}" for kind, paths in _classes().items())


def settings(
    write: Annotated[bool, typer.Option(help=f"Renew the tables of {PAGE} instead of printing them.")] = False,
) -> None:
    """Print every setting of params.yaml with its type, default and meaning.

    Raises:
        ConfigError: `write` is set, and the page or one of its two marks is missing.
    """
    if not write:
        typer.echo(settings_table())
        return
    if not PAGE.is_file():
        raise ConfigError(f"{PAGE} not found: run from the repository's root")
    before, begin, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ConfigError(f"{PAGE} has no place for the tables: it needs the lines {BEGIN} and {END}")
    PAGE.write_text(f"{before}{BEGIN}\n{settings_table()}\n{END}{after}", encoding="utf-8")
    typer.echo(f"{PAGE} is renewed")


def _classes() -> dict[type[Config], list[str]]:
    """Return all settings classes with the keys of params.yaml that hold them, in the file's order."""
    found: dict[type[Config], list[str]] = {Params: []}

    def walk(kind: type[Config]) -> None:
        for name, field in kind.model_fields.items():
            if kind is Params and name == "defaults":  # the same keys as those of a scenario
                continue
            mapped = get_origin(field.annotation) is dict
            for held in _held(field.annotation):
                if held not in found:
                    found[held] = []
                    walk(held)
                found[held].append(f"{name}.NAME" if mapped else name)

    walk(Params)
    return found


def _held(annotation: Any) -> Iterator[type[Config]]:
    """Yield the settings classes that a field of this type may hold."""
    if not isinstance(annotation, type):
        for part in get_args(annotation):
            yield from _held(part)
    elif issubclass(annotation, DetectorConfig):
        yield from (DETECTORS.get(name).config_class for name in DETECTORS.names)
    elif issubclass(annotation, SelectionPolicy):
        yield from (POLICIES.get(name) for name in POLICIES.names)
    elif issubclass(annotation, Config):
        yield annotation


def _title(kind: type[Config], paths: list[str]) -> str:
    if not paths:
        return "`params.yaml`"
    title = " or ".join(f"`{path}`" for path in paths)
    for name, field in kind.model_fields.items():
        if name in CHOOSERS and get_origin(field.annotation) is Literal:
            first, *others = get_args(field.annotation)
            title += f" with `{name}: {first}`" + "".join(f" or `{other}`" for other in others)
    return title


def _table(kind: type[Config]) -> str:
    rows = [
        f"| `{name}` | {_type(field.annotation, field)} | {_default(field)} | {_meaning(kind, name)} |"
        for name, field in kind.model_fields.items()
        if not (name in CHOOSERS and get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1)
    ]
    head = "| key | type | default | meaning |\n|-----|------|---------|---------|\n"
    return head + "\n".join(rows) if rows else "No further keys."


def _type(annotation: Any, field: FieldInfo | None = None) -> str:
    """Describe the type of a field in words, with the bounds that the field sets."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is tuple:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return "mapping"
    held = list(_held(annotation))
    optional = " or null" if type(None) in arguments else ""
    if held:
        return ("mapping" if len(held) == 1 else "one of several mappings") + optional
    if origin in (Union, types.UnionType):
        return " or ".join(_type(part) for part in arguments if part is not type(None)) + optional
    return PLAIN[annotation] + _bounds(field)


def _bounds(field: FieldInfo | None) -> str:
    found = []
    for bound in field.metadata if field else ():
        for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
            if hasattr(bound, name):
                found.append(f"{sign} {getattr(bound, name)}")
    return " " + ", ".join(found) if found else ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be given"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Config):
        named = [getattr(value, key) for key in CHOOSERS if hasattr(value, key)]
        return f"`{named[0]}`" if named else "see its table"
    if isinstance(value, str):
        return f"`{value}`"
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _meaning(kind: type[Config], name: str) -> str:
    owner = next(parent for parent in kind.__mro__ if name in inspect.get_annotations(parent))
    text = (
        kind.model_fields[name].description
        or _comments(owner).get(name)
        or MEANINGS.get(f"{owner.__name__}.{name}")
        or _docstring(kind.model_fields[name].annotation)
    )
    return " ".join(text.split()).removesuffix(".").replace("|", "\\|")


def _docstring(annotation: Any) -> str:
    """Return the first line of the docstring of the settings class that a field holds, or an empty text."""
    for part in (annotation, *get_args(annotation)):
        if isinstance(part, type) and issubclass(part, Config) and part.__doc__:
            return part.__doc__.splitlines()[0]
    return ""


@cache
def _comments(kind: type[Config]) -> dict[str, str]:
    """Return the comment of each field of a class: the one beside it, or the first sentence of the one above it."""
    source = textwrap.dedent(inspect.getsource(kind))
    lines = source.splitlines()
    comments = {
        token.start[0]: token.string.removeprefix("#").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    found = {}
    (body,) = ast.parse(source).body
    assert isinstance(body, ast.ClassDef)
    for node in body.body:
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        above: list[str] = []
        line = node.lineno - 1
        while line in comments and lines[line - 1].lstrip().startswith("#"):
            above.insert(0, comments[line])
            line -= 1
        found[node.target.id] = comments.get(node.end_lineno or 0) or " ".join(above).partition(". ")[0]
    return found
