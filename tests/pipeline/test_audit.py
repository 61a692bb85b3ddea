"""The reproducibility audit, for real: everything is computed again, and one forged hash is found."""

import shutil

import pytest
import yaml
from rich.console import Console

from orchestration.commands.audit import audit_commit, compare
from orchestration.pipeline import dvc
from tests.conftest import REPOSITORY
from tests.pipeline.conftest import command, commit, git


def audit(folder, *arguments, **options):
    return command(folder, ["python", "-m", "orchestration", "audit", *arguments], COLUMNS="200", **options)


def test_a_forged_hash_is_the_one_difference(dagster_copy):
    folder = dagster_copy
    dvc.add(folder, ["data/own/cells"])  # as a large data set is kept, and the images of a line
    files = [path for path in (folder / "data/own/cells").rglob("*") if path.is_file()]
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}
    assert audit(folder, "--save-reference").returncode == 0
    path = folder / "dvc.lock"
    lock = yaml.safe_load(path.read_text())
    (forged,) = [out for out in lock["stages"]["detector@noisy20"]["outs"] if out["path"].startswith("data/detector")]
    forged["md5"] = "0" * 32 + ".dir"
    path.write_text(yaml.safe_dump(lock, sort_keys=False))
    commit(folder, "outputs")

    done = audit(folder)
    assert done.returncode == 1, done.stdout[-2000:] + done.stderr[-2000:]
    total = sum(len(stage["outs"]) for stage in lock["stages"].values())
    assert f"{total - 1} outputs identical, 1 different" in done.stdout
    assert "00000000000000000000000000000000.dir" in done.stdout
    # the metrics tell the reader how much it matters: here not at all
    assert "image_auroc" in done.stdout and "+0.000000" in done.stdout
    assert before == {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}  # raw data is only read


def test_without_a_committed_lock_it_says_so(tmp_path):
    command(tmp_path, ["git", "init", "--quiet"])
    done = audit(tmp_path)
    assert done.returncode == 2
    assert "dvc.lock" in done.stderr and "Traceback" not in done.stderr


def test_a_full_cache_of_the_clone_is_an_error_though_dvc_gives_zero(tmp_path, monkeypatch):
    folder, program = tmp_path / "repository", tmp_path / "dvc"
    program.write_text("#!/bin/sh\necho \"ERROR: failed to transfer '3f' - [Errno 28] No space left on device\" >&2\n")
    program.chmod(0o755)
    folder.mkdir()
    for name in ("params.yaml", "dvc.yaml", "constraints.txt"):
        shutil.copy(REPOSITORY / name, folder)
    (folder / "dvc.lock").write_text("schema: '2.0'\n")
    git(folder, "init", "--quiet")
    commit(folder, "workspace")
    monkeypatch.setattr(dvc, "_executable", lambda: str(program))
    with pytest.raises(dvc.DvcError, match=r"`dvc repro` in the clone: 1 files did not get .*No space left on device"):
        audit_commit(folder, Console())


def test_compare_finds_changed_missing_and_new_outputs():
    def lock(**outs):
        return {"stages": {"s": {"outs": [{"path": path, "md5": md5} for path, md5 in outs.items()]}}}

    found = {one.path: one for one in compare(lock(a="1", b="2", c="3"), lock(a="1", b="9", d="4"))}
    assert {path: one.identical for path, one in found.items()} == {
        "a": True,
        "b": False,
        "c": False,
        "d": False,
    }
    assert found["c"].computed is None and found["d"].committed is None
