"""The pages are true: links lead somewhere, examples run, settings are valid, and numbers equal those in the files."""

import ast
import re
import shutil
import tomllib
from pathlib import Path

import pandas as pd
import pytest
import yaml

from benchmarks.sensitivity import agreement
from orchestration.commands.benchmark import load_grid
from orchestration.commands.settings import BEGIN, END, MEANINGS, settings, settings_table
from orchestration.pipeline.params import load_params
from tests.conftest import REPOSITORY, python

RESULTS = REPOSITORY / "benchmarks" / "results"
PAGES = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((REPOSITORY / "docs").glob("*.md")),
    *(REPOSITORY / folder / "README.md" for folder in ("benchmarks", "data", "llbnad", "mlflow")),
]


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text(page), re.DOTALL | re.MULTILINE)


def prose(page: Path) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", text(page), flags=re.DOTALL | re.MULTILINE)


def slugs(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", text(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in slugs(linked), f"{page.name} links to {target}: no such heading"


def test_readme_is_one_page():
    assert len(text(REPOSITORY / "README.md").splitlines()) <= 110


def test_docstrings_begin_with_a_verb_or_a_thing():
    for folder in ("llbnad", "orchestration", "benchmarks", "tests"):
        for file in (REPOSITORY / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(text(file))):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                    first = (ast.get_docstring(node) or "-").split()[0]
                    assert first not in ("Of", "What"), f"{file}: {getattr(node, 'name', 'module')}"


def test_licence_is_said_alike_everywhere():
    project = tomllib.loads(text(REPOSITORY / "pyproject.toml"))["project"]
    assert yaml.safe_load(text(REPOSITORY / "CITATION.cff"))["license"] == project["license"] == "Apache-2.0"
    assert "Apache License\n                           Version 2.0, January 2004" in text(REPOSITORY / "LICENSE")
    assert project["license"] in text(REPOSITORY / "README.md")


def test_python_example_of_the_readme_runs(cells, tmp_path):
    for name, chosen in (("images", slice(0, 24)), ("new_images", slice(24, 28))):
        (tmp_path / name).mkdir()
        for path in sorted((cells / "good").iterdir())[chosen]:
            shutil.copy(path, tmp_path / name)
    (example,) = blocks(REPOSITORY / "README.md", "python")
    done = python("-c", f"{example}\nprint(len(predictions))", folder=tmp_path, PYTHONPATH=str(REPOSITORY))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "4"
    assert (tmp_path / "bottle.safetensors").is_file()


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "yaml")], ids=lambda page: page.stem)
def test_settings_in_the_pages_are_valid(page, tmp_path):
    known = yaml.safe_load(text(REPOSITORY / "params.yaml"))
    for block in blocks(page, "yaml"):
        anchor = f"defaults: &defaults {yaml.safe_dump(known['defaults'], default_flow_style=True, width=10_000)}"
        given = yaml.safe_load(anchor + block)
        for key in ("datasets", "scenarios"):
            given[key] = known[key] | given.get(key, {})
        for key in ("encoder", "region", "detector"):
            if key in given:
                given["defaults"] = given["defaults"] | {key: given.pop(key)}
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(known | given))
        load_params(tmp_path / "params.yaml")  # raises if a key is unknown or missing


def test_every_grid_is_valid():
    grids = sorted((REPOSITORY / "benchmarks").glob("*.yaml"))
    named = {path.name for path in grids if path.name != "dvc.yaml"}
    assert all(load_grid(path).cells() for path in grids if path.name in named)
    documented = text(REPOSITORY / "benchmarks" / "README.md")
    assert all(name in documented for name in named)


def test_table_of_settings_is_the_config_classes():
    page = text(REPOSITORY / "docs" / "methods.md")
    kept = page.partition(f"{BEGIN}\n")[2].partition(f"\n{END}")[0]
    assert kept == settings_table(), "docs/methods.md is old: run `python -m orchestration settings --write`"


def test_every_setting_has_a_meaning_and_appears():
    rows = [row.strip("| ").split(" | ") for row in settings_table().splitlines() if row.startswith("| `")]
    assert all(len(row) == 4 and row[3].strip() for row in rows)
    said = {row[3] for row in rows}
    assert not {key for key, meaning in MEANINGS.items() if meaning not in said}, "said beside the field now"
    keys = {row[0].strip("`") for row in rows}
    known = yaml.safe_load(text(REPOSITORY / "params.yaml"))
    wanted = {*known["defaults"], *known["arrival"], *known["runtime"], *known["promotion"], "memory_size", "keep"}
    assert wanted <= keys


def test_the_command_settings_prints_and_renews_the_page(tmp_path, monkeypatch, capsys):
    settings(write=False)
    assert capsys.readouterr().out.strip() == settings_table()
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs" / "methods.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    monkeypatch.chdir(tmp_path)
    settings(write=True)
    assert page.read_text() == f"before\n{BEGIN}\n{settings_table()}\n{END}\nafter\n"


def means(file: str, *keys: str) -> dict[tuple[str, ...], str]:
    """Return the mean I-AUROC of a table of runs by `keys` and policy, as the pages show it."""
    rows = pd.read_csv(RESULTS / file)
    rows["alpha"] = rows["alpha"].map("{:g}".format)
    return rows.groupby([*keys, "policy"])["image_auroc"].mean().map("{:.3f}".format).to_dict()


def table_rows(heading: str, number_of_keys: int) -> list[tuple[tuple[str, ...], list[str]]]:
    """Return keys and numbers of each row of the first table below a heading of docs/results.md."""
    section = text(REPOSITORY / "docs" / "results.md").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [
        [cell.strip() for cell in row.strip("|").split("|")] for row in re.findall(r"^\|.+\|$", section, re.MULTILINE)
    ]
    numbers = [row for row in rows if len(row) > number_of_keys and re.fullmatch(r"0\.\d{3}", row[number_of_keys])]
    return [(tuple(row[:number_of_keys]), row[number_of_keys:]) for row in numbers]


TABLE = ["none", "random", "paper", "mad", "keep_80", "mixture_patches", "default"]


def test_large_table_is_the_file():
    known = means("purification.csv", "detector", "alpha")
    rows = table_rows("The table", 2)
    assert len(rows) == 8
    for keys, values in rows:
        assert values == [known[*keys, policy] for policy in (*TABLE, "tail", "oracle")], keys


def test_table_of_every_set_is_the_file():
    known = means("purification.csv", "detector", "dataset", "alpha")
    names = {"ELPV mono": "elpv_mono", "ELPV poly": "elpv_poly", "magnetic tile": "magnetic_tile"}
    rows = table_rows("Every set", 3)
    assert len(rows) == 40
    for (detector, dataset, alpha), values in rows:
        cell = (detector, names.get(dataset, dataset), alpha)
        assert values[:8] == [known[*cell, policy] for policy in (*TABLE, "oracle")], cell


def test_small_table_is_the_file():
    readme = text(REPOSITORY / "README.md")
    known = means("purification.csv", "detector", "alpha")
    shown = dict(re.findall(r"^\| [^|]*\*(none|paper|default|oracle)\*[^|]*\|(.+)\|$", readme, re.MULTILINE))
    cells = [(detector, alpha) for detector in ("padim", "patchcore") for alpha in ("0", "0.1", "0.2", "0.4")]
    assert list(shown) == ["none", "paper", "default", "oracle"]
    for policy, values in shown.items():
        assert values.replace(" ", "").split("|") == [known[*cell, policy] for cell in cells]


def test_what_successors_lose_of_synthetic_defects_is_what_the_table_says():
    page = text(REPOSITORY / "docs" / "acceptance-limits.md")
    measured = pd.read_csv(RESULTS / "sensitivity_limits.csv")
    for successor, rows in measured.groupby("successor", sort=False):
        loss, refused = rows["largest_loss"], int(rows["refused"].sum())
        found = f"{rows['champion_finds'].mean():.0%} → {rows['finds'].mean():.0%}"
        shown = f"{loss.median():.2f} ({loss.min():.2f} to {loss.max():.2f}) | {refused} of {len(rows)}"
        assert f"| {successor} | {found} | {shown} |" in page


def test_what_synthetic_defects_say_of_real_ones_is_what_the_table_says():
    page = text(REPOSITORY / "docs" / "sensitivity.md")
    measured = pd.read_csv(RESULTS / "sensitivity_reality.csv")
    agree = agreement(measured).set_index("set")
    for name, rows in measured.groupby("set", sort=False):
        numbers = [rows["sensitivity"].mean(), rows["recall"].mean(), *agree.loc[name].drop("models")]
        assert f"| {name} | {len(rows)} | {' | '.join(f'{number:.2f}' for number in numbers)} |" in page
    for name, rows in measured.groupby("trained_on", sort=False):
        means = rows[["sensitivity", "recall", "fpr", "synthetic_auroc", "auroc"]].mean()
        shown = [f"{value:.3f}" if key == "fpr" else f"{value:.2f}" for key, value in means.items()]
        assert f"| {name} | {' | '.join(shown)} |" in page
