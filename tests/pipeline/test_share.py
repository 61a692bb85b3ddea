"""An ingest at home hands on what it took in: a clone elsewhere has the line's entry, and gets its images."""

import shutil

import pytest
import yaml

from orchestration.line.ingest import ingest
from orchestration.line.share import ShareError, share
from orchestration.pipeline import dvc
from tests.conftest import save_image
from tests.pipeline.conftest import command, commit, git, make_workspace

LINE = "bottle"


@pytest.fixture
def home(tmp_path):
    """A repository at home with a bare git repository and a folder as DVC's remote, and images in an inbox."""
    folder = make_workspace(tmp_path / "home", {}, {})
    git(tmp_path, "init", "--quiet", "--bare", "main.git")
    git(folder, "remote", "add", "origin", str(tmp_path / "main.git"))
    (folder / ".dvc" / "tmp").mkdir(exist_ok=True)
    for number in range(3):
        save_image(folder / "data" / "incoming" / LINE / f"{number}.png", number)
    ingest(folder, LINE, 0, dvc.add)
    return folder


def with_remote(home):
    done = command(home, ["dvc", "remote", "add", "--default", "store", str(home.parent / "store")])
    assert done.returncode == 0, done.stderr
    return home


def test_another_clone_gets_the_line_and_its_images(home, tmp_path):
    with_remote(home)
    commit(home, "remote")  # with everything else, the new line's records included
    (home / "notes.txt").write_text("nobody's business")
    assert share(home, LINE) is False  # nothing new to commit, but pushed
    git(tmp_path, "clone", "--quiet", str(tmp_path / "main.git"), "worker")
    worker = tmp_path / "worker"
    assert LINE in yaml.safe_load((worker / "params.yaml").read_text())["scenarios"]
    pulled = command(worker, ["dvc", "pull", f"data/raw/{LINE}/arrived.dvc"])
    assert pulled.returncode == 0, pulled.stderr
    assert len(list((worker / "data" / "raw" / LINE / "arrived").rglob("*.png"))) == 3


def test_only_the_line_is_committed(home):
    with_remote(home)
    (home / "dvc.yaml").write_text((home / "dvc.yaml").read_text() + "# being edited\n")
    assert share(home, LINE) is True
    changed = set(git(home, "show", "--name-only", "--format=", "HEAD").split())
    assert changed == {
        "params.yaml",
        f"data/review/{LINE}.csv",
        f"data/raw/{LINE}/arrived.dvc",
        f"data/raw/{LINE}/arrivals.jsonl.dvc",
    }
    assert git(home, "rev-parse", "HEAD") == git(home, "ls-remote", "origin", "HEAD").split()[0] + "\n"
    assert share(home, LINE) is False


def test_without_a_remote_nothing_is_committed_and_the_remedy_is_named(home):
    before = git(home, "rev-parse", "HEAD")
    with pytest.raises(dvc.DvcError, match="dvc remote add -d store URL"):
        share(home, LINE)
    assert git(home, "rev-parse", "HEAD") == before


def test_a_branch_that_moved_on_is_not_overwritten(home, tmp_path):
    with_remote(home)
    share(home, LINE)
    git(tmp_path, "clone", "--quiet", str(tmp_path / "main.git"), "other")
    (tmp_path / "other" / "new").touch()
    commit(tmp_path / "other", "elsewhere")
    git(tmp_path / "other", "push", "--quiet")
    save_image(home / "data" / "incoming" / LINE / "3.png", 3)
    ingest(home, LINE, 0, dvc.add)
    with pytest.raises(ShareError, match="git pull --rebase"):
        share(home, LINE)
    git(home, "pull", "--quiet", "--rebase", "--autostash", "origin", "HEAD")
    assert share(home, LINE) is False


def test_a_line_without_images_shares_nothing(home):
    shutil.rmtree(home / "data" / "raw" / LINE)
    assert share(home, LINE) is False
