"""The purification table as a DVC stage, through both doors; Real-IAD's protocol on a miniature data set."""

import json
import os
import signal
import subprocess
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from llbnad.config import ElpvDataset
from llbnad.data.sources import elpv
from orchestration.pipeline.paths import BENCHMARK_STAGES
from tests.conftest import REPOSITORY
from tests.pipeline.conftest import LINE, add_records, command, commit, environment, make_workspace, repro, wait_for

TINY = {
    "encoder": {"name": "efficientnet_lite2", "input_size": 64, "layers": [2, 3]},
    "detectors": {"patchcore": {"name": "patchcore", "memory_size": 128}},
    "rivals": {},
    "seeds": [0],
    "subsets": 2,
}


@pytest.fixture
def workspace(tmp_path, cells):
    """Our code, the benchmark's stage, and a grid of the same policies that takes seconds."""
    folder = add_records(
        make_workspace(tmp_path / "repository", {"cells": cells}, {"line": {**LINE, "dataset": "cells"}})
    )
    (folder / "benchmarks").mkdir()
    (folder / BENCHMARK_STAGES).write_text((REPOSITORY / BENCHMARK_STAGES).read_text())
    grid = yaml.safe_load((REPOSITORY / "benchmarks" / "purification.yaml").read_text())
    source = {"source": "image_folder", "root": "data/own/cells", "category": "cells"}
    grid |= TINY | {"datasets": {"cells": source}, "ratios": [0.2], "noise": {**grid["noise"], "max_ratio": 0.2}}
    for name in ("bold", "shy", "tail_bold", "mixture_2_patches"):  # neighbours of others
        del grid["policies"][name]
        grid["candidates"].remove(name)
    (folder / "benchmarks" / "purification.yaml").write_text(yaml.safe_dump(grid))
    commit(folder, "a grid")
    return folder


def test_the_table_is_a_stage_beside_the_pipeline_and_an_asset(workspace):
    repro(workspace, BENCHMARK_STAGES)
    rows = pd.read_csv(workspace / "benchmarks" / "results" / "purification.csv")
    policies = {"default", "tail", "mixture_2", "mixture_patches", "mad", "keep_80", "paper"}
    policies |= {"none", "oracle", "random"}
    assert policies <= set(rows["policy"])
    assert rows["image_auroc"].notna().all()
    done = command(
        workspace, ["dagster", "asset", "materialize", "--select", "benchmark_purification",
                    "-m", "orchestration.definitions"],
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "didn't change, skipping" in done.stdout + done.stderr

    again = command(workspace, ["python", "-m", "orchestration", "benchmark", "benchmarks/purification.yaml"])
    assert "1 cells, 1 of them done before" in again.stdout and "did not record" not in again.stderr
    code = workspace / "llbnad" / "purification" / "aggregate.py"
    code.write_text(code.read_text() + "# changed\n")
    # what it computes then was computed above: it is ended once it has said so
    changed = subprocess.Popen(
        ["python", "-m", "orchestration", "benchmark", "benchmarks/purification.yaml"], cwd=workspace,
        env=environment(workspace), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert any("1 cells, 0 of them done before" in line for line in changed.stdout)
    changed.terminate()
    changed.wait(60)


ORPHANS = """
import multiprocessing, os, pathlib, signal, sys
from concurrent.futures import ProcessPoolExecutor
from orchestration.commands.benchmark import _prepare
pool = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"), initializer=_prepare)
numbers = {pool.submit(os.getpid).result() for _ in range(4)}
pathlib.Path(sys.argv[1]).write_text(" ".join(map(str, numbers)))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_processes_of_a_table_that_was_killed_end(tmp_path):
    """As the kernel kills when memory is short: one process, and not those that it started."""
    nowhere = subprocess.DEVNULL  # a pipe would stay open as long as they live
    code = subprocess.run(
        ["python", "-c", ORPHANS, tmp_path / "numbers"], cwd=REPOSITORY, env=environment(REPOSITORY), stdout=nowhere,
        stderr=nowhere,
    ).returncode  # fmt: skip
    left = [Path("/proc") / number for number in (tmp_path / "numbers").read_text().split()]
    ended = wait_for(lambda: not any((one / "exe").exists() for one in left), 20)
    for one in left if not ended else []:
        os.kill(int(one.name), signal.SIGKILL)
    assert code == -signal.SIGKILL and left and ended


def save_view(cell, path, defect):
    pixels = np.array(cell.convert("RGB").resize((72, 72)))
    if defect:
        pixels[20:44, 20:44] = (255, 0, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def made_category(root, category, alphas):
    """Ten OK and eight NG samples of five views in Real-IAD's layout; a defect shows in two of an NG sample's views.

    The JSON set of α has ten training samples, 10·α of them NG; the test set is the same for all: the last four NG
    samples and four OK ones that are never trained on.
    """
    listing = elpv.records(ElpvDataset())
    normal = [record for record in listing.records if record.anomaly_class == "OK"]
    pictures = iter(Image.open(listing.root / record.path) for record in normal)
    samples = {}
    for kind, count in (("OK", 14), ("NG/AK", 8)):
        for number in range(1, count + 1):
            views = []
            for view in range(1, 6):
                stem = f"{kind}/S{number:04d}/{category}_{number:04d}_{kind.replace('/', '_')}_C{view}_20231021"
                shows = kind != "OK" and view in (2, 4)
                save_view(next(pictures), root / "realiad_1024" / category / f"{stem}.jpg", shows)
                if shows:
                    mask = np.zeros((72, 72), np.uint8)
                    mask[20:44, 20:44] = 255
                    Image.fromarray(mask).save(root / "realiad_1024" / category / f"{stem}.png")
                views.append(
                    {"category": category, "anomaly_class": "AK" if shows else "OK", "image_path": f"{stem}.jpg",
                     "mask_path": f"{stem}.png" if shows else None}
                )  # fmt: skip
            samples[kind, number] = views
    ok = [samples["OK", number] for number in range(1, 15)]
    ng = [samples["NG/AK", number] for number in range(1, 9)]
    for alpha in alphas:
        replaced = round(10 * alpha)
        content = {
            "meta": {"prefix": f"{category}/", "normal_class": "OK"},
            "train": list(chain(*ng[:replaced], *ok[replaced:10])),
            "test": list(chain(*ng[4:], *ok[10:])),
        }
        file = root / f"realiad_jsons_fuiad_{alpha}" / f"{category}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))


def test_real_iad_s_protocol_on_a_miniature_in_its_layout(tmp_path):
    grid = yaml.safe_load((REPOSITORY / "benchmarks" / "real_iad.yaml").read_text())
    assert len(grid["datasets"]) == 30 and grid["ratios"] == [0, 0.1, 0.2, 0.4]
    ratios = [0.1, 0.4]
    for category in ("toy", "zipper"):
        made_category(tmp_path / "data" / "own" / "real_iad", category, ratios)
    (tmp_path / "real_iad.yaml").write_text(yaml.safe_dump(grid | TINY | {"ratios": ratios}))
    done = command(
        tmp_path, ["python", "-m", "orchestration", "benchmark", "real_iad.yaml"], PYTHONPATH=str(REPOSITORY),
        MLFLOW_TRACKING_URI=f"sqlite:///{add_records(tmp_path)}/mlflow/mlflow.db",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stderr.count("is left out") == 28
    rows = pd.read_csv(tmp_path / "benchmarks" / "results" / "real_iad.csv")
    assert set(rows["dataset"]) == {"toy", "zipper"} and set(rows["rule"]) == {"official"}
    assert {"none", "oracle", "random", "default", "paper", "misindexed"} <= set(rows["policy"])
    none = rows[rows["policy"] == "none"]
    assert set(none["alpha"]) == set(ratios)
    assert np.allclose(none["sample_contamination"], none["alpha"])
    assert np.allclose(none["contamination_before"], none["alpha"] * 2 / 5)  # a defect shows in two views of five
    assert set(none["n_train"]) == {50} and set(none["n_test"]) == {40}
    assert none["pixel_auroc"].notna().all()
    assert (rows.loc[rows["policy"] == "oracle", "contamination_after"] == 0).all()


def test_an_unknown_data_set_is_named(tmp_path):
    done = command(REPOSITORY, ["python", "-m", "orchestration", "benchmark", "benchmarks/real_iad.yaml",
                                "--dataset", "tony"])  # fmt: skip
    assert done.returncode == 2 and "--dataset tony: the grid has ['audiojack'" in done.stderr
