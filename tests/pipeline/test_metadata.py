"""Files as Dagster shows them: tables with a type per column, pictures."""

import re
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from llbnad.data.manifest import normalise
from orchestration.assets.asset_metadata import in_order, lines_of, metadata, metadata_of_files
from orchestration.assets.dvc_assets import check_results
from orchestration.assets.partitions import SCENARIOS
from orchestration.assets.pictures import picture
from orchestration.definitions import defs
from orchestration.pipeline.tables import plain_table
from orchestration.pipeline.validation import ValidationError, check_manifest
from orchestration.registry.register_version import CHECKS
from tests.conftest import made_manifest, save_image


def shown(table):
    return [dict(record.data) for record in table.records], {one.name: one.type for one in table.schema.columns}


def test_a_csv_file_is_a_table_of_its_first_rows(tmp_path):
    content = {"name": ["a", None] * 60, "count": range(120), "share": np.full(120, 1 / 3), "known": [True, False] * 60}
    pd.DataFrame(content).to_csv(tmp_path / "x.csv", index=False)
    found = metadata_of_files([tmp_path / "x.csv"])
    assert found["rows of x.csv"] == 120
    records, types = shown(found["x.csv, first 100 of 120 rows"])
    assert types == {"name": "string", "count": "int", "share": "float", "known": "bool"}
    assert len(records) == 100 and records[1] == {"name": None, "count": 1, "share": 0.3333, "known": False}


def test_what_is_empty_or_zero_is_only_named(tmp_path):
    (tmp_path / "rejected.csv").write_text("path,reason\n")
    pd.DataFrame({"image_id": []}).to_parquet(tmp_path / "excluded.parquet")
    (tmp_path / "summary.json").write_text('{"n_overruled": 0, "n_selected": 7, "share": 0.0, "known": false, "n": 0}')
    files = [tmp_path / name for name in ("excluded.parquet", "rejected.csv", "summary.json")]
    assert metadata_of_files(files) == {
        "n_selected": 7, "share": 0.0, "known": False,
        "tables without a row": "excluded.parquet, rejected.csv", "counts of 0": "n_overruled, n",
    }  # fmt: skip


def test_outputs_are_listed_with_their_hashes(tmp_path):
    save_image(tmp_path / "data" / "curve.png")
    found = metadata({"data/curve.png": "f00"}, tmp_path, "line")
    assert found["outputs"].value == "* data/curve.png: f00"
    assert found["curve (picture)"].value.startswith("![curve](data:image/jpeg;base64,")


def test_many_lines_are_entries_of_their_own_because_pages_hide_long_lists():
    assert lines_of("notes", ["a_b", "c"])["notes"].value == "* a\\_b\n* c"
    many = lines_of("notes", ["x" * 500, "y" * 500])
    assert many == {"notes 1": "x" * 500, "notes 2": "y" * 500}
    assert [*in_order({"outputs": 0, "other": 0, **many, "outcome": 0})] == [
        "outcome", "notes 1", "notes 2", "other", "outputs"
    ]  # fmt: skip


def test_outputs_that_are_not_on_this_machine_are_listed_all_the_same(tmp_path):
    """As after `slices collect`: dvc.lock names them, and their bytes stay in the remote."""
    assert [*metadata({"data/purified/line/kept.parquet": "f00"}, tmp_path, "line")] == ["outputs"]


def test_a_picture_lies_where_the_web_server_of_dagster_finds_it(tmp_path, monkeypatch):
    """Its pages show Markdown at once only below 1000 characters."""
    save_image(tmp_path / "curve.png")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    shown = picture(tmp_path / "curve.png").value
    small, whole = re.fullmatch(r"!\[curve\]\(/logs/(.+)\)\n\n\[.+\]\(/logs/(.+)\)", shown).groups()
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        paths = [
            Path(instance.compute_log_manager.get_captured_local_path(key, kind))
            for *key, kind in (small.split("/"), whole.split("/"))
        ]
    with Image.open(paths[0]) as copy:
        assert copy.format == "JPEG" and paths[0].suffix == ".jpg" and len(shown) < 200
    assert paths[1].read_bytes() == (tmp_path / "curve.png").read_bytes() and paths[1].suffix == ".png"
    (tmp_path / "dagster.yaml").write_text("run_launcher: {module: dagster_k8s, class: K8sRunLauncher}")
    assert picture(tmp_path / "curve.png").value.startswith("![curve](data:image/jpeg;base64,")  # a worker's own disk


def test_a_validation_report_is_an_asset_check_with_a_table(tmp_path):
    manifest = normalise(made_manifest(3, 1))
    manifest.loc[0, "width"] = -1
    with pytest.raises(ValidationError):
        check_manifest(manifest, tmp_path / "validation.json")
    result = check_results(tmp_path / "validation.json", "raw", "manifest")
    assert not result.passed and result.description.startswith("failed: ")
    records, types = shown(result.metadata["report"])
    assert types["success"] == "bool" and len(records) == result.metadata["expectations"].value
    assert sum(not record["success"] for record in records) == result.metadata["failed"].value == 1


def test_lines_are_a_list_whose_signs_are_shown_as_they_are():
    assert lines_of("x", ["noisy_20: 1 <b> of *2*", "next"])["x"].value == "* noisy\\_20: 1 \\<b\\> of \\*2\\*\n* next"


def test_mixed_columns_are_text():
    plain = plain_table(("value",), [[1], ["a"], [[2, 3]], [None]])
    assert plain.types == {"value": "string"}
    assert [record["value"] for record in plain.records] == ["1", "a", "[2, 3]", None]


def test_numbers_are_shown_with_four_digits(tmp_path):
    (tmp_path / "metrics.json").write_text('{"auroc": 0.930483526, "images": 412345, "threshold": 0.000123456}')
    assert metadata_of_files([tmp_path / "metrics.json"]) == {
        "auroc": 0.9305, "images": 412345, "threshold": 0.0001235,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.000123456, 0.0001235), (0.5, 0.5), (14.60514, 14.61), (123456.789, 123456.8), (412345.0, 412345.0), (7, 7)],
)
def test_tables_lose_no_digit_before_the_point(value, shown):
    assert plain_table(("x",), [[value]]).records == [{"x": shown}]


def test_every_check_says_what_it_protects_against_and_what_to_do():
    specs = [spec for assets in defs.assets for spec in getattr(assets, "check_specs", ())]
    names = {"noisy", "drift", "control_chart", "parity", *CHECKS}
    assert len(specs) > len(CHECKS) and names <= {spec.name for spec in specs}
    assert all("If it " in spec.description for spec in specs)
    unpartitioned = {spec.asset_key.to_user_string() for spec in specs if spec.partitions_def != SCENARIOS}
    assert unpartitioned == {"inspected"}  # whose runs must not wait for a line's training
