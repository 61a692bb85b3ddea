"""Programs that start warm: forked from a process that has imported the libraries already.

A stage, and every command of this repository, is a process of its own, and of the seconds it takes most go into imports
(torch, MLflow, Great Expectations, Dagster, DVC). `programs()` is a folder for the front of PATH with a `python`, a
`dvc` and a `dagster` that ask a server to fork. The code that runs is the same, in a process with the caller's working
directory, environment, streams and exit code; our own packages are imported anew. Tests in which a process is killed,
and a few of everything else, start cold, as people do.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

LIBRARIES = (  # of the commands and stages; what is forgotten here is imported by the process, only later
    "torch", "timm", "mlflow", "mlflow.pyfunc", "mlflow.store.tracking.sqlalchemy_store", "great_expectations",
    "matplotlib.backends.backend_agg", "matplotlib.pyplot", "sklearn.metrics", "sklearn.decomposition", "scipy.stats",
    "pandas", "pyarrow.parquet", "safetensors.torch", "PIL.Image", "pydantic", "typer", "rich.table", "yaml",
    "ruamel.yaml", "zc.lockfile", "tqdm", "dagster", "dagster._cli",
)  # fmt: skip
DVC_LIBRARIES = ("dvc.cli.parser", "dvc.repo", "dvc.repo.reproduce", "dvc.stage", "dvc.stage.cache", "dvc_data.index")
FOLDER = "LLBNAD_WARM_PROGRAMS"  # environment variable: where the servers of this test session are
OWNER = "LLBNAD_WARM_OWNER"  # environment variable: the process whose end is theirs as well
PROGRAM = """\
#!{python} -IS
import json, os, signal, socket, sys
arguments = {arguments} or sys.argv[1:]
if arguments[:1] not in (["-m"], ["-c"]) or "--multiprocessing-fork" in arguments:
    os.execv({python!r}, [{python!r}, *arguments])
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
    server.connect({address!r})
    request = json.dumps([arguments, os.getcwd(), dict(os.environ)]).encode("utf-8", "surrogateescape")
    socket.send_fds(server, [request], [0, 1, 2])
    code = json.loads(server.recv(100) or "137")
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


def prepare() -> Callable[[], None]:
    """Choose the folder of this test session, before processes of pytest-xdist are started; return what ends it."""
    folder = tempfile.mkdtemp(prefix="llbnad-warm-")
    os.environ[FOLDER], os.environ[OWNER] = folder, str(os.getpid())
    return lambda: shutil.rmtree(folder, ignore_errors=True)


def programs() -> str:
    """Return the folder with the warm programs; the first call in a test session starts the servers."""
    from filelock import FileLock

    folder, environment = Path(os.environ[FOLDER]), Path(sys.executable).parent
    with FileLock(folder / "lock"):
        if not (folder / "bin").exists():
            dvc = str((environment / "dvc").resolve().with_name("python"))
            servers = [
                _start(folder, "python.socket", sys.executable, LIBRARIES),
                _start(folder, "dvc.socket", dvc, DVC_LIBRARIES),
            ]
            (folder / "new").mkdir()
            _write(folder / "new" / "python", sys.executable, "python.socket", "[]")
            _write(folder / "new" / "dagster", sys.executable, "python.socket", "['-m', 'dagster', *sys.argv[1:]]")
            _write(folder / "new" / "dvc", dvc, "dvc.socket", "['-m', 'dvc', *sys.argv[1:]]")
            for address, process in servers:
                while not address.exists():
                    assert process.poll() is None, address.with_suffix(".log").read_text()
                    time.sleep(0.05)
            (folder / "new").rename(folder / "bin")
    return str(folder / "bin")


def _start(folder: Path, name: str, python: str, libraries: tuple[str, ...]) -> tuple[Path, subprocess.Popen[bytes]]:
    command = [python, str(Path(__file__)), str(folder / name), str(folder / "bin" / "python"), *libraries]
    with (folder / name).with_suffix(".log").open("w") as log:
        return folder / name, subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )


def _write(path: Path, python: str, address: str, arguments: str) -> None:
    place = str(Path(os.environ[FOLDER]) / address)
    path.write_text(PROGRAM.format(python=python, address=place, arguments=arguments))
    path.chmod(0o755)


def serve(address: Path, executable: str, libraries: list[str]) -> None:
    """Import libraries, then fork for every request until the test session has ended."""
    for library in libraries:
        importlib.import_module(library)
    sys.executable = executable  # what a warm process starts is warm as well
    gc.collect()
    gc.freeze()  # a collection in a fork would touch, and so copy, all of its memory
    assert threading.active_count() == 1
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(address.with_suffix(".new")))
        listener.listen(100)
        address.with_suffix(".new").rename(address)
        owner = Path(f"/proc/{os.environ[OWNER]}")
        while address.exists() and owner.exists():
            if select.select([listener], [], [], 1)[0]:
                connection, _ = listener.accept()
                if os.fork() == 0:
                    listener.close()
                    _attend(connection)
                connection.close()


def _attend(connection: socket.socket) -> None:
    """Run what is asked for in a process, tell its exit code, and end it if whoever asked has gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    process = os.fork()
    if process == 0:
        connection.close()
        _run(*json.loads(request.decode("utf-8", "surrogateescape")), streams)
    for stream in streams:
        os.close(stream)
    ended = os.pidfd_open(process)
    if ended not in select.select([ended, connection], [], [])[0]:
        signal.pidfd_send_signal(ended, signal.SIGTERM)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    with suppress(OSError):  # nobody is there to hear it
        connection.send(json.dumps(code).encode())
    os._exit(0)


def _run(arguments: list[str], folder: str, environment: dict[str, str], streams: list[int]) -> None:
    """Be `python -m MODULE …` or `python -c CODE …`."""
    code: object = 0
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(write_through=True)  # type: ignore[union-attr]
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        more = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
        sys.path[0:1] = [folder, *more]  # instead of this file's folder
        kind, program, *rest = arguments
        sys.argv = [kind, *rest]
        if kind == "-m":
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        else:
            exec(program, {"__name__": "__main__"})
    except SystemExit as error:
        code = error.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
