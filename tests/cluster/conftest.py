"""The parts of a cluster on one machine and without network: PostgreSQL in a folder, S3 in a thread, Celery on files.

`make test-cluster` installs what they need; where a package or a program is missing, they are skipped and say so.
"""

import logging
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn
from urllib.request import Request, urlopen
from uuid import uuid4

import pytest

from tests.conftest import shared
from tests.pipeline.conftest import by_dvc, command, commit, git, line_images  # noqa: F401  # two are fixtures

PACKAGES = ("dagster_celery", "dagster_postgres", "dagster_k8s", "psycopg2", "boto3", "s3fs", "moto")
BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:]  # where Debian keeps what it leaves out of PATH
USERS = ("postgres", "nobody")  # PostgreSQL does not run as root

ABSENT = [package for package in PACKAGES if find_spec(package) is None]
GIT_ALONE = "test_slices.py"  # needs none of them


class Skipped(pytest.Module):
    """A file of tests whose imports would fail."""

    def collect(self) -> NoReturn:
        pytest.skip(f"{', '.join(ABSENT)}: `make test-cluster` installs them", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Skip the files that need a package that is missing."""
    skipped = ABSENT and module_path.name != GIT_ALONE
    return Skipped.from_parent(parent, path=module_path) if skipped else None


def program(name: str) -> str:
    path = os.pathsep.join([os.environ["PATH"], *map(str, BINARIES)])
    found = shutil.which(name, path=path)
    if found is None:
        pytest.skip(f"the program {name} of PostgreSQL is not here (Debian: apt install postgresql)")
    return found


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Return the address of a PostgreSQL server of this test session, without the name of a database."""
    initdb, pg_ctl = program("initdb"), program("pg_ctl")
    known = {entry.pw_name for entry in pwd.getpwall()}
    user = next(name for name in USERS if name in known) if os.getuid() == 0 else None
    folder, port = Path(tempfile.mkdtemp(prefix="llbnad-postgres-", dir="/tmp")), free_port()
    if user:
        shutil.chown(folder, user)
    data, log = folder / "data", folder / "log"

    def run(*command: str) -> None:
        done = subprocess.run(command, user=user, cwd="/", capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr + (log.read_text() if log.exists() else "")

    run(initdb, "--pgdata", str(data), "--username", "llbnad", "--auth", "trust", "--no-sync")
    settings = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
    # not captured: the server would keep the pipe open
    subprocess.run(
        [pg_ctl, "start", "--wait", "--pgdata", str(data), "--log", str(log), "--options", settings],
        user=user, cwd="/", check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    yield f"llbnad@127.0.0.1:{port}"
    run(pg_ctl, "stop", "--mode", "immediate", "--pgdata", str(data))
    shutil.rmtree(folder)


@pytest.fixture
def database(postgres: str) -> str:
    """Return the address of an empty database, as LLBNAD_DAGSTER_DB and LLBNAD_MLFLOW_DB have it."""
    import psycopg2

    name = f"test_{uuid4().hex}"
    with closing(psycopg2.connect(f"postgresql://{postgres}/postgres")) as connection:
        connection.autocommit = True
        connection.cursor().execute(f"create database {name}")
    return f"postgresql+psycopg2://{postgres}/{name}"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the name of an empty bucket; the environment holds how to reach it."""
    import boto3
    import s3fs
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    s3fs.S3FileSystem.clear_instance_cache()  # one of an earlier test asks the server of that test
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    # buckets outlive their server
    urlopen(Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()
    boto3.client("s3").create_bucket(Bucket="llbnad")
    yield "llbnad"
    server.stop()


@pytest.fixture(scope="session")
def cluster(by_dvc: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """A clone of `by_dvc` with data under DVC and nothing computed, its remote repository, and an empty DVC remote."""

    def build(folder: Path) -> None:
        home = folder / "home"
        shutil.copytree(by_dvc, home, ignore=shutil.ignore_patterns("mlflow", "cache", "dvc.lock", "tmp", ".dagster"))
        for name in ("code", "params", "raw", "settings", "noisy", "features", "sub_model", "scores", "purified",
                     "detector", "evaluation"):  # fmt: skip
            shutil.rmtree(home / "data" / name)
        git(folder, "init", "--quiet", "--bare", "origin.git")
        git(home, "remote", "add", "origin", str(folder / "origin.git"))
        for arguments in (
            ["remote", "add", "--default", "store", str(folder / "store")],
            ["add", "data/own/cells", "data/own/line"],
            ["push", "--quiet"],
        ):
            done = command(home, ["dvc", *arguments])
            assert done.returncode == 0, done.stderr
        commit(home, "data under DVC")
        git(home, "push", "--quiet", "origin", "HEAD")

    return shared(tmp_path_factory, "cluster", build)


@pytest.fixture
def remotes(cluster: Path, tmp_path: Path) -> Path:
    """A copy of the cluster to work in, which knows its remotes where they were copied to."""
    folder = tmp_path / "cluster"
    shutil.copytree(cluster, folder, symlinks=True)
    git(folder / "home", "remote", "set-url", "origin", str(folder / "origin.git"))
    _find_store(folder / "home", folder)
    return folder


def machine(remotes: Path, name: str, finished: Path | None = None) -> tuple[Path, Path]:
    """Return a clone and a folder of a machine. With a finished workspace's cache, its stages take no time."""
    clone, folder = remotes / f"{name}-clone", remotes / name
    git(remotes, "clone", "--quiet", "origin.git", str(clone))
    _find_store(clone, remotes)
    if finished is not None:
        shutil.copytree(finished / ".dvc" / "cache", folder / "cache")
    return clone, folder


def _find_store(clone: Path, remotes: Path) -> None:
    """Give a clone the address of the copied DVC remote, as a machine may have one of its own."""
    (clone / ".dvc" / "config.local").write_text(f"['remote \"store\"']\n    url = {remotes / 'store'}\n")


def kill_session(process: subprocess.Popen[bytes]) -> None:
    """End a program and what it started, as a machine that loses power does."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
