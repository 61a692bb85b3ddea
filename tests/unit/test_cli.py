"""The `llbnad` command as people type it: on real images, in real processes wherever it computes something."""

import json
import os
import re
import subprocess
import sys

import pandas as pd
import pytest
from typer.main import get_command

from llbnad.cli import app, main
from llbnad.sensitivity.defects import KINDS
from tests.conftest import REPOSITORY, llbnad, save_image

METRICS = {"image_auroc", "image_ap", "image_f1_max", "pixel_auroc", "pixel_ap", "pixel_f1_max", "aupro"}
COUNTS = {"n_train", "n_selected", "contamination_before", "contamination_after"}
DECISION = {
    "n_labelled", "n_tested", "threshold", "fpr_at_threshold", "recall_at_threshold", "recall_of_rejected",
    "rejected_called_normal",
    "unsure_share", "pixel_threshold", "min_area", "region_recall", "false_regions_per_normal", "normal_with_region",
}  # fmt: skip

DRAWN = {"sensitivity", "sensitivity_line", *(f"smallest_{kind}_px" for kind in KINDS)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, cells):
    out = tmp_path_factory.mktemp("run")
    cache = tmp_path_factory.mktemp("cache")
    arguments = ["run", "--source", "image_folder", "--root", cells, "--category", "cells", "--noise-ratio", 0.2,
                 "--max-noise-ratio", 0.3, "--subsets", 2, "--suspects", 6, "--target-fpr", 0.1,
                 "--set", "encoder.input_size=64", "--set", "detector.memory_size=1024",
                 "--set", "sensitivity={images: 2, sizes: [20, 60]}",
                 "--cache", cache]  # fmt: skip
    for name in ("a", "b"):
        done = llbnad(*arguments, "--out", out / name)
        assert done.returncode == 0, done.stderr
    return out, done


def test_run_writes_what_it_promises(trained):
    out, done = trained
    metrics = json.loads((out / "a" / "metrics.json").read_text())
    assert set(metrics) == METRICS | COUNTS | DECISION | DRAWN | {"notes"}
    assert metrics["notes"] == [line.removeprefix("note: ") for line in done.stdout.splitlines() if "note: " in line]
    assert metrics["notes"][0].startswith(f"kept {metrics['n_selected']} of {metrics['n_train']}")
    suspects = pd.read_csv(out / "a" / "suspects.csv")
    assert set(suspects["status"]) <= {"kept", "rejected"} and (suspects["reason"] != "").all()
    assert len(suspects) >= 6 and suspects["name"].str.endswith(".png").all()  # also if nothing is rejected
    assert len(pd.read_csv(out / "a" / "scores.csv")) == metrics["n_train"]
    assert 0 <= metrics["fpr_at_threshold"] < metrics["recall_at_threshold"] <= 1
    assert metrics["pixel_auroc"] is None  # no masks: skipped, not zero
    assert 0.5 < metrics["image_auroc"] <= 1
    comparison = pd.read_csv(out / "a" / "comparison.csv")
    assert comparison["method"].tolist() == ["llbnad", "none", "oracle", "random"]
    assert {"seed", *METRICS, *COUNTS} <= set(comparison.columns)
    scores = pd.read_parquet(out / "a" / "scores.parquet")
    assert {"image_id", "sub_model_0", "sub_model_1", "subset", "score"} == set(scores.columns)
    assert len(scores) == metrics["n_train"]
    assert len(pd.read_parquet(out / "a" / "kept.parquet")) == metrics["n_selected"]
    assert "oracle" in done.stdout and "written to" in done.stdout
    assert metrics["sensitivity_line"] in done.stdout and "(normal test images)" in done.stdout
    assert "for 10.00% false positives, from" in done.stdout


def test_second_fresh_run_has_the_same_bytes(trained):
    out, _ = trained
    files = sorted(path.relative_to(out / "a") for path in (out / "a").rglob("*") if path.is_file())
    assert len(files) >= 10
    for file in files:
        assert (out / "a" / file).read_bytes() == (out / "b" / file).read_bytes(), file


def test_predict_scores_what_it_can_read_and_says_what_it_cannot(trained, cells, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for path in sorted((cells / "bad").iterdir())[:2]:
        (images / path.name).write_bytes(path.read_bytes())
    (images / "broken.png").write_bytes(b"nothing")
    for name, content in ((b"odd \xff.png", (cells / "bad" / path.name).read_bytes()), (b"bad \xfe.png", b"nothing")):
        (images / os.fsdecode(name)).write_bytes(content)  # names that are no text
    done = llbnad("predict", trained[0] / "a" / "model.safetensors", images, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert len(table) == 5
    odd, bad = (table[table["path"].str.endswith(name)].iloc[0] for name in (r"odd \xff.png", r"bad \xfe.png"))
    assert odd["score"] > 0 and r"bad \xfe.png is not an image" in bad["error"]
    broken = table[table["path"].str.endswith("broken.png")].iloc[0]
    assert pd.isna(broken["score"]) and "not an image" in broken["error"]
    good = table[table["error"].isna()]
    assert good["score"].gt(0).all()
    assert all((tmp_path / "out" / name).is_file() for name in good["heatmap"])


def test_labels_follow_the_sensitivity_knob(trained, cells, tmp_path):
    model = trained[0] / "a" / "model.safetensors"
    tables = {}
    for name, knob in {"default": [], "sensitive": ["--fpr", 0.4]}.items():
        done = llbnad("predict", model, cells / "bad", "--out", tmp_path / name, *knob)
        assert done.returncode == 0, done.stderr
        tables[name] = pd.read_csv(tmp_path / name / "predictions.csv")
        table = tables[name]
        sure = table[table["label"] != "unsure"]
        assert (sure["label"] == "defect").equals(sure["score"] > sure["threshold"])
        assert "called defects" in done.stdout and "false positives, from" in done.stdout
    assert tables["sensitive"]["threshold"][0] < tables["default"]["threshold"][0]
    found = {name: set(table["path"][table["score"] > table["threshold"]]) for name, table in tables.items()}
    assert found["default"] < found["sensitive"]
    percent = llbnad("predict", model, cells / "bad", "--out", tmp_path / "x", "--fpr", 5)
    assert percent.returncode == 2 and "did you mean 0.05?" in percent.stderr


def test_prediction_equals_the_score_in_the_pipeline(trained, cells, tmp_path):
    known = pd.read_parquet(trained[0] / "a" / "predictions.parquet").query("method == 'llbnad'").head(5)
    paths = [cells / path for path in known["path"]]
    done = llbnad("predict", trained[0] / "a" / "model.safetensors", *paths, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    scores = pd.read_csv(tmp_path / "predictions.csv").set_index("path")["score"]
    # the CSV keeps 6 decimals
    assert [scores[str(path)] for path in paths] == pytest.approx(known["score"].tolist(), abs=5.1e-7)


def test_a_run_reserves_the_anomalies_that_its_own_ratio_needs_and_takes_twenty_images(tmp_path):
    for number in range(34):
        save_image(tmp_path / "few" / ("good" if number < 28 else "bad") / f"{number}.png", seed=number)
    arguments = ["run", "--source", "image_folder", "--root", tmp_path / "few", "--category", "few",
                 "--noise-ratio", 0.1, "--detector", "padim", "--set", "encoder.input_size=64", "--suspects", 2,
                 "--no-comparators"]  # fmt: skip
    done = llbnad(*arguments, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["n_train"] == 20 and metrics["n_labelled"] == 8 + 4  # 2 of the 6 anomalies are learnt from
    assert metrics["threshold"] > 0 and any("few images: 20" in note for note in metrics["notes"])
    refused = llbnad(*arguments, "--max-noise-ratio", 0.4, "--out", tmp_path / "reserved")
    assert refused.returncode == 2 and "max_ratio 0.4 of 20 training samples needs 8" in refused.stderr


def test_unsorted_folder_gives_scores_only(cells, tmp_path):
    for number, path in enumerate(sorted(cells.rglob("*.png"))[:30]):
        target = tmp_path / "line" / f"{number}.png"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes())
    (tmp_path / "line" / "broken.png").write_bytes(b"nothing")
    out = tmp_path / "out"
    done = llbnad("run", tmp_path / "line", "--subsets", 2, "--detector", "padim", "--suspects", 4,
                  "--set", "encoder.input_size=64", "--out", out)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert set(pd.read_parquet(out / "kept.parquet")["category"]) == {"line"}  # the name of the folder
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["image_auroc"] is None and metrics["n_train"] == 30
    assert "an image that a detector learnt is no test of it: scores only, no metrics" in done.stdout
    assert "1 files were left out (1 unreadable): left_out.csv says why" in done.stdout
    assert pd.read_csv(out / "left_out.csv")["path"].tolist() == ["broken.png"]
    assert (out / "plots" / "evaluation" / "scores.png").is_file()
    assert len(pd.read_parquet(out / "rejected.parquet")) == 30 - metrics["n_selected"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--source", "image_folder", "--out", "x"], "--root is missing"),
        (["run", "--source", "real_iad", "--root", "/nowhere", "--out", "x"], "is not a folder"),
        (["run", "--noise-ratio", "0.5", "--max-noise-ratio", "0.4", "--out", "x"], "ratio 0.5 is above max_ratio 0.4"),
        (["run", "--keep", "20", "--out", "x"], "did you mean 0.2?"),
        (["run", "--aggregation", "median", "--out", "x"], "aggregation"),
        (["run", "--detector", "magic", "--out", "x"], "unknown detector 'magic'; there are"),
        (["run", "--set", "detector.memory_sise=3", "--out", "x"], "detector.memory_sise is an unknown key"),
        (["run", "--set", "detector.memory_size", "--out", "x"], "expected KEY=VALUE"),
        (["run", "--set", "suspects=[1", "--out", "x"], "'[1' is not a YAML value"),
        (["run", "--set", "seed=2020-99-99", "--out", "x"], "'2020-99-99' is not a YAML value"),
        (["run", "--set", "encoder.name=magic", "--source", "image_folder", "--root", ".", "--out", "x"], "'magic'"),
        (["run", "--set", "encoder.layers=[9]", "--source", "image_folder", "--root", ".", "--out", "x"], "layers"),
        (["run", "--subsets", "1", "--source", "real_iad", "--root", "/nowhere", "--out", "x"], "at least 2 subsets"),
        (["run", "--device", "tpu9000", "--out", "x"], "device"),
        (["predict", "gone.safetensors", "params.yaml", "--out", "x"], "no model at gone.safetensors"),
        (["predict", "gone.safetensors", "nowhere/", "--out", "x"], "does not exist"),
        (["run", "--source", "image_folder", "--root", ".", "--out", "x"], "--out x lies in .:"),
        (["run", "--source", "ftp", "--out", "x"], "ftp"),
        (["run", ".", "--source", "elpv", "--out", "x"], ". is the data set already: leave out --source and --root"),
        (["run", ".", "--root", "docs", "--out", "x"], ". is the data set already: leave out --source and --root"),
        (["run", "README.md", "--out", "x"], "README.md is not a folder: give a folder of images, or a CSV"),
        (["run", "docs", "--noise-ratio", "0.2", "--out", "x"], "--noise-ratio 0.2 has no effect with protocol as_is"),
        (["run", "--protocol", "as_is", "--max-noise-ratio", "0.2", "--out", "x"], "--max-noise-ratio 0.2 has no"),
        (["run", "docs", "--category", "", "--out", "x"], "category"),
        (["lint"], "--root is missing"),
        (["lint", "nowhere"], "nowhere is not a folder"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(arguments, message, monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(sys, "argv", ["llbnad", *arguments])
    with pytest.raises(SystemExit) as ended:  # any other error would be a traceback
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert message in said
    assert "Traceback" not in said and "read images" not in said


def test_output_that_is_a_file_is_one_clear_line(cells, tmp_path):
    (tmp_path / "out").touch()
    done = llbnad("run", "--source", "image_folder", "--root", cells, "--category", "c", "--out", tmp_path / "out",
                  "--set", "encoder.input_size=32")  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: ") and str(tmp_path / "out") in done.stderr
    assert "Traceback" not in done.stderr


def test_set_has_the_last_word(cells, tmp_path):
    """Also of the settings that have an option of their own: --set seed=1 is --seed 1, in every step."""
    for name, option in (("a", ["--seed", 1, "--suspects", 2]), ("b", ["--set", "seed=1", "--set", "suspects=2"])):
        done = llbnad("run", cells, "--category", "c", "--subsets", 2, "--protocol", "replace",
                      "--noise-ratio", 0.2, "--max-noise-ratio", 0.3, "--no-comparators", "--set",
                      "encoder.input_size=32", "--set", "detector.memory_size=64", "--cache", tmp_path / "cache",
                      *option, "--out", tmp_path / name)  # fmt: skip
        assert done.returncode == 0, done.stderr
    for name in ("scores.parquet", "predictions.parquet", "comparison.csv", "plots/purification/suspects.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_help_names_every_option():
    done = llbnad("run", "--help", COLUMNS="120")
    options = get_command(app).commands["run"].params
    names = {name for option in options for name in (*option.opts, *option.secondary_opts)}
    assert len(names) >= 24 and {"--source", "--set", "--no-comparators"} <= names
    assert done.returncode == 0
    assert not {name for name in names if not re.search(rf"(?<![\w-]){name}(?![\w-])", done.stdout)}


def test_the_library_needs_none_of_the_tools_around_it():
    code = (
        "import pkgutil, importlib, sys, llbnad\n"
        "for module in pkgutil.walk_packages(llbnad.__path__, 'llbnad.'):\n"
        "    try: importlib.import_module(module.name)\n"
        "    except ModuleNotFoundError as error:\n"
        "        if error.name != 'anomalib': raise  # an extra\n"
        "print([name for name in ('dagster', 'dvc', 'mlflow', 'great_expectations', 'orchestration')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.stdout.strip() == "[]", done.stderr


def test_masks_give_pixel_metrics(tmp_path):
    for number in range(12):
        save_image(tmp_path / "set" / "good" / f"{number}.png", number)
    for number in range(4):
        save_image(tmp_path / "set" / "bad" / f"{number}.png", 100 + number)
        save_image(tmp_path / "set" / "bad" / f"{number}_mask.png", 200 + number)
    done = llbnad("run", "--source", "image_folder", "--root", tmp_path / "set", "--max-noise-ratio", 0.2,
                  "--noise-ratio", 0.1, "--subsets", 2, "--set", "encoder.input_size=64",
                  "--out", tmp_path / "out")  # fmt: skip
    assert done.returncode == 0, done.stderr
    # every pixel of these masks is set, so there is no normal pixel in defective images; normal images supply them
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["aupro"] is not None
