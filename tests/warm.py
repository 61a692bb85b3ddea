"""Programs that start warm: forked from a process that has imported the libraries already.

A stage, and every command of this repository, is a process of its own, and of the seconds it takes most go into imports
(torch, MLflow, Great Expectations, Dagster, DVC). `programs()` is a folder for the front of PATH with `python`, `dvc`,
`dagster` and `mlflow` that ask a server to fork. The code that runs is the same, in a process with the caller's working
directory, environment, streams and exit code; our own packages are imported anew. The processes of pytest-xdist
start so as well. Tests in which a process is killed, and a few of everything else, start cold, as people do.
"""

import atexit
import fcntl
import gc
import importlib
import marshal
import multiprocessing
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
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

LIBRARIES = (  # of the commands and stages; what is forgotten here is imported by the process, only later
    "torch", "timm", "mlflow", "mlflow.pyfunc", "mlflow.store.tracking.sqlalchemy_store", "great_expectations",
    "matplotlib.backends.backend_agg", "matplotlib.pyplot", "sklearn.metrics", "sklearn.decomposition", "scipy.stats",
    "pandas", "pyarrow.parquet", "safetensors.torch", "PIL.Image", "pydantic", "typer", "rich.table", "yaml",
    "ruamel.yaml", "zc.lockfile", "tqdm", "dagster", "dagster._cli",
    "PIL.ImageFile", "pyarrow.dataset", "pyarrow.pandas_compat", "safetensors.numpy", "torch.utils.serialization",
    "pandas.io.formats.csvs", "pandas.core.methods.to_dict", "pandas.core.arrays.arrow.extension_types",
    "alembic.command", "mlflow.store.tracking.sqlalchemy_workspace_store", "mlflow.models.display_utils",
    "mlflow.store.model_registry.sqlalchemy_workspace_store", "mlflow.pyfunc.scoring_server", "git",
    "opentelemetry.sdk.metrics", "rich.traceback", "structlog", "upath.implementations.local", "watchdog.observers",
    "dagster._core.storage.sqlite_storage", "dagster._core.instance.factory", "dagster._core.executor.in_process",
    "dagster._core.definitions.antlr_asset_selection.antlr_asset_selection", "dagster._core.workspace.autodiscovery",
    "dagster._core.definitions.repository_definition.repository_data_builder", "dagster._daemon.controller",
    "dagster._core.definitions.external_asset", "dagster._core.utility_ops", "dagster._utils.test.definitions",
    "mlflow.server.fastapi_app", "uvicorn", "tabulate",  # torch lists compile times at the end of every process
)  # fmt: skip
DVC_LIBRARIES = (
    "dvc.cli.parser", "dvc.repo", "dvc.repo.reproduce", "dvc.stage", "dvc.stage.cache", "dvc_data.index", "networkx",
    "dvc.repo.open_repo", "dvc.repo.stage", "dvc.repo.index", "dvc.repo.graph", "dvc.repo.plots", "dvc.repo.params",
    "dvc.repo.metrics", "dvc.repo.artifacts", "dvc.repo.datasets", "dvc.rwlock", "dvc.dirs", "dvc.data_cloud",
    "dvc.cachemgr", "dvc.utils.strictyaml", "dvc_data.hashfile.db.local", "dvc_data.hashfile.status", "dulwich.index",
    "dulwich.ignore", "dulwich.worktree", "pydot", "configobj", "rich.json", "multiprocessing.spawn",
    "fsspec.implementations.memory", "ruamel.yaml", "pyparsing", "pprint", "dvc.repo.trie",
)  # fmt: skip
COLD = str(Path(sys.prefix, "bin", "python"))  # a Python that imports everything itself
FOLDER = "LLBNAD_WARM_PROGRAMS"  # environment variable: where the servers of this test session are
OWNER = "LLBNAD_WARM_OWNER"  # environment variable: the process whose end is theirs as well
# Of the standard library only what is compiled in: the program runs some thousand times in a test session.
PROGRAM = """\
#!{python} -IS
import _signal, _socket, marshal, os, sys
arguments = {arguments} or sys.argv[1:]
while arguments[:1] in (["-B"], ["-u"]):
    del arguments[0]
if arguments[:1] not in (["-m"], ["-c"]):
    os.execv({python!r}, [{python!r}, *arguments])
inherited = [int(name) for name in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + name)]
inherited = [number for number in inherited if os.get_inheritable(number)]
server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
server.connect({address!r})
numbers = b"".join(number.to_bytes(4, sys.byteorder) for number in inherited)
request = marshal.dumps([arguments, os.getcwd(), dict(os.environ), inherited])
server.sendmsg([request], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, numbers)])
handed_on = _signal.SIGINT, _signal.SIGTERM
for number in handed_on:
    _signal.signal(number, lambda number, frame: server.send(b"%d" % number))
code = int(server.recv(100) or b"1")
for number in handed_on:
    _signal.signal(number, _signal.SIG_DFL)
if code < 0:
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

    folder = Path(os.environ[FOLDER])
    with FileLock(folder / "lock"):
        if not (folder / "bin").exists():
            dvc = str(Path(COLD).parents[2] / ".venv-dvc" / "bin" / "python")
            servers = [
                _start(folder, "python.socket", COLD, LIBRARIES),
                _start(folder, "dvc.socket", dvc, DVC_LIBRARIES),
            ]
            (folder / "new").mkdir()
            _write(folder / "new" / "python", COLD, "python.socket", "[]")
            for name, module in (("dagster", "dagster"), ("dagster-daemon", "dagster._daemon"), ("mlflow", "mlflow")):
                _write(folder / "new" / name, COLD, "python.socket", f"['-m', '{module}', *sys.argv[1:]]")
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
    if "PIL.Image" in sys.modules:
        sys.modules["PIL.Image"].init()  # its forty formats
    if "mlflow" in sys.modules:  # the packages that are installed, which it looks at in every process that logs a model
        importlib.import_module("mlflow.utils.requirements_utils")._init_packages_to_modules_map()
    sys.executable = executable  # what a warm process starts is warm as well
    multiprocessing.set_executable(executable)
    for one in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        one.atexit = False  # libraries that undo what they registered: that costs each fork most of its end
    gc.collect()
    gc.freeze()  # a collection in a fork would touch, and so copy, all of its memory
    assert threading.active_count() == 1
    owner, forks = Path(f"/proc/{os.environ[OWNER]}"), dict[int, Fork]()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(address.with_suffix(".new")))
        listener.listen(100)
        address.with_suffix(".new").rename(address)
        while address.exists() and owner.exists():
            callers = {fork.caller.fileno(): fork for fork in forks.values() if not fork.killed}
            for ready in select.select([listener, *callers, *forks], [], [], 1)[0]:
                if ready is listener:
                    _answer(listener, forks)
                elif ready in callers:
                    callers[ready].hear()
                else:
                    forks.pop(ready).end()
    for fork in forks.values():
        signal.pidfd_send_signal(fork.ended, signal.SIGKILL)


@dataclass
class Fork:
    """A process that runs for a caller, who may send it signals and waits for its exit code."""

    process: int
    ended: int  # file descriptor that is readable when the process has ended
    caller: socket.socket
    killed: bool = False

    def hear(self) -> None:
        """Hand a signal on; the end of the caller is that of the process."""
        number = b""
        with suppress(OSError):
            number = self.caller.recv(100)
        self.killed = not number
        signal.pidfd_send_signal(self.ended, int(number or signal.SIGKILL))

    def end(self) -> None:
        """Tell the exit code."""
        code = os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
        with suppress(OSError):  # nobody is there to hear it
            self.caller.send(b"%d" % code)
        self.close()

    def close(self) -> None:
        os.close(self.ended)
        self.caller.close()


def _answer(listener: socket.socket, forks: dict[int, Fork]) -> None:
    """Run what is asked for in a process."""
    caller, _ = listener.accept()
    request, received, _, _ = socket.recv_fds(caller, 1 << 20, 100)
    if not request:  # the caller was killed before it could ask
        caller.close()
        return
    process = os.fork()
    if process == 0:
        listener.close()
        caller.close()
        for fork in forks.values():
            fork.close()
        _run(*marshal.loads(request), received)
    for number in received:
        os.close(number)
    ended = os.pidfd_open(process)
    forks[ended] = Fork(process, ended, caller)


def _run(
    arguments: list[str], folder: str, environment: dict[str, str], numbers: list[int], received: list[int]
) -> None:
    """Be `python -m MODULE …` or `python -c CODE …`."""
    code: object = 0
    try:
        # open files get the numbers they have for the caller; first they go out of the way of each other
        moved = [fcntl.fcntl(number, fcntl.F_DUPFD, max(numbers) + 1) for number in received]
        for number in received:
            os.close(number)
        for number, target in zip(moved, numbers, strict=True):
            os.dup2(number, target)
            os.close(number)
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(write_through=True)  # type: ignore[union-attr]
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.dont_write_bytecode = bool(environment.get("PYTHONDONTWRITEBYTECODE"))
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
    except BaseException:  # this process stands for a Python of its own, which would print any of them and end with 1
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if not stream.closed:
            stream.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
