"""`make ui`: Dagster (web server and daemon) and the MLflow server side by side on this machine, until Ctrl-C.

With a cluster folder they are the home of several machines: Dagster takes its configuration from there, and MLflow
keeps records in the database and artifacts in the bucket that two environment variables name.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import typer

from llbnad.errors import ConfigError, DataError
from llbnad.utils.files import replacing
from orchestration.pipeline.cluster import PAGE, WORKSPACE, cluster_environment
from orchestration.tracking.database import prepare_database
from orchestration.tracking.server import ENVIRONMENT, LAST_UI, LOCAL_UI, MLFLOW_FOLDER, pages, tracking_uri

END_SECONDS = 15  # time that a server has to end
ENDED_BY = {"mlflow": signal.SIGTERM}  # at SIGINT it prints a traceback; Dagster ends its own processes by SIGINT alone
ALL_ADDRESSES = "0.0.0.0"  # an address to listen on, which a browser cannot open
STORE, ARTIFACTS = "LLBNAD_MLFLOW_DB", "LLBNAD_MLFLOW_ARTIFACTS"  # addresses of a cluster's records and artifacts


def ui(
    dagster_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the Dagster UI.")] = 3000,
    mlflow_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the MLflow UI.")] = 5000,
    host: Annotated[str, typer.Option(help="Address to listen on; neither UI asks for a password.")] = "127.0.0.1",
    cluster: Annotated[Path | None, typer.Option(help="Be the home of this cluster, e.g. cluster/celery.")] = None,
) -> None:
    """Start both user interfaces."""
    _refuse_other_machine(host)
    root = Path.cwd()
    (root / MLFLOW_FOLDER).mkdir(exist_ok=True)
    own = {"DAGSTER_HOME": os.environ.get("DAGSTER_HOME", str(root / ".dagster"))}
    environment = {
        **os.environ,
        **ENVIRONMENT,
        **(own if cluster is None else cluster_environment(cluster)),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # job execution would start ten processes
        LOCAL_UI: f"http://{'127.0.0.1' if host == ALL_ADDRESSES else host}:{mlflow_port}",
    }
    python = Path(sys.executable).parent
    own_mlflow = not os.environ.get("MLFLOW_TRACKING_URI")  # the variable names a server that runs already
    raise_if_not_free(host, {"--dagster-port": dagster_port} | ({"--mlflow-port": mlflow_port} if own_mlflow else {}))
    if own_mlflow:
        with replacing(root / LAST_UI) as temporary:
            temporary.write_text(f"{environment[LOCAL_UI]}\n", encoding="utf-8")
    workspace = [] if cluster is None else ["--workspace", str(cluster / WORKSPACE)]
    quiet = ["--log-level", "warning"]  # every look of a sensor is a line, and its page shows them
    commands = [[str(python / "dagster"), "dev", "--host", host, "--port", str(dagster_port), *quiet, *workspace]]
    if own_mlflow:
        store, artifacts = _embedded(root) if cluster is None else _shared()
        commands.append(
            [str(python / "mlflow"), "server", "--host", host, "--port", str(mlflow_port), "--workers", "1",
             "--backend-store-uri", store, "--artifacts-destination", artifacts, *_own_pages()]
        )  # fmt: skip
        if cluster is not None:
            environment["MLFLOW_TRACKING_URI"] = environment[LOCAL_UI]  # of what runs at home
    shown = "127.0.0.1" if host == ALL_ADDRESSES else host
    mlflow = f"http://{shown}:{mlflow_port}" if own_mlflow else pages(tracking_uri())
    addresses = [(shown, port) for port in [dagster_port, *([mlflow_port] if own_mlflow else [])]]
    serve_together(commands, environment, links(f"http://{shown}:{dagster_port}", mlflow), addresses)


def links(dagster: str, mlflow: str) -> str:
    """Return the pages worth opening, one per line, and what to type for what has no page of its own."""
    rows = {
        "pipeline": (
            f"{dagster}/asset-groups",
            "all assets: click one in a group, then its tab Partitions has a scenario's pictures and checks",
        ),
        "suspects": (
            f"{dagster}/assets/purified",
            "what to look at first: the tab Partitions has each scenario, the overview the one that ran last",
        ),
        "runs": (f"{mlflow}/#/experiments", "runs beside each other; Models: what was registered"),
    }
    commands = {
        "judge suspects": "review SCENARIO --out review.html",
        "drop images on a model": "page SCENARIO",
        "see what is out of date": "status (in Dagster: Automation, staleness)",
    }
    return "\n".join(
        [
            "",
            *(f"{name:10}{address:46}{what}" for name, (address, what) in rows.items()),
            *(f"to {what}: python -m orchestration {command}" for what, command in commands.items()),
            "Ctrl-C ends both servers",
        ]
    )


def raise_if_not_free(host: str, ports: Mapping[str, int]) -> None:
    """Raise a DataError that names the option if `host` cannot listen on one of the ports, or on one port twice.

    Args:
        host: address to listen on.
        ports: port by the option that chooses it.
    """
    taken = dict[int, str]()
    for option, port in ports.items():
        if port in taken:
            raise DataError(f"{option} {port} is the port of {taken[port]} too: choose another")
        taken[port] = option
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: a server that ended just now
            try:
                probe.bind((host, port))
            except (OSError, OverflowError) as error:
                raise DataError(f"{option} {port} cannot be listened on at {host} ({error}): choose another") from None


def serve_together(
    commands: Sequence[Sequence[str]],
    environment: Mapping[str, str],
    announcement: str,
    addresses: Sequence[tuple[str, int]] = (),
) -> None:
    """Run servers until Ctrl-C, SIGTERM or SIGHUP, or until one ends: then it is named, and the exit code is 1.

    None of them, and nothing that they started, outlives this.

    Args:
        commands: one command per server.
        environment: their environment.
        announcement: printed when all of them answer.
        addresses: hosts and ports at which they answer.
    """
    # a background job of a shell ignores SIGINT: SIGTERM ends all as well
    signal.signal(signal.SIGTERM, _end)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # under nohup, it shall outlive its terminal
        signal.signal(signal.SIGHUP, _end)
    own = signal.getsignal(signal.SIGINT)
    if own == signal.SIG_IGN:  # servers would inherit that, and Dagster ends its own processes by SIGINT
        signal.signal(signal.SIGINT, signal.default_int_handler)
    started = [subprocess.Popen(command, env=environment, start_new_session=True) for command in commands]
    signal.signal(signal.SIGINT, own)
    told = False
    try:
        while all(process.poll() is None for process in started):
            if not told and all(map(_answers, addresses)):  # not earlier: what servers print would hide it
                print(announcement, flush=True)
                told = True
            time.sleep(0.5)
        ended = " and ".join(
            command[0] for command, process in zip(commands, started, strict=True) if process.poll() is not None
        )
        print(f"error: {ended} has ended, its reason stands above", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # before the line, after which people may press again
        print("ending both …", flush=True)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # an impatient second signal would leave servers behind
        for command, process in zip(commands, started, strict=True):
            if process.poll() is None:
                os.killpg(process.pid, ENDED_BY.get(Path(command[0]).name, signal.SIGINT))
        for process in started:
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def _end(*_: object) -> None:
    """End this program, once: a second signal, such as that which `make` passes on, must not disturb the end."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.exit(0)


def _answers(address: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(address, timeout=1):
            return True
    except OSError:
        return False


def _own_pages() -> list[str]:
    """Return the option that makes MLflow's pages open as machine learning; none if it is not installed."""
    return ["--app-name", "llbnad"] if entry_points(group="mlflow.app", name="llbnad") else []


def _embedded(root: Path) -> tuple[str, str]:
    """Return the addresses of MLflow's database and artifacts in the repository. The database is made if missing."""
    prepare_database(root)
    folder = root / MLFLOW_FOLDER
    return f"sqlite:///{folder / 'mlflow.db'}", (folder / "artifacts").as_uri()


def _shared() -> tuple[str, str]:
    """Return the addresses of a cluster's records and artifacts.

    Raises:
        ConfigError: a variable is not set.
    """
    missing = [name for name in (STORE, ARTIFACTS) if not os.environ.get(name)]
    if missing:
        raise ConfigError(
            f"MLflow needs {' and '.join(missing)} (or MLFLOW_TRACKING_URI, if a server runs): export them; {PAGE} "
            "says what they hold"
        )
    return os.environ[STORE], os.environ[ARTIFACTS]


def _refuse_other_machine(host: str) -> None:
    """Raise ConfigError if nothing can listen on the address `host`."""
    try:
        if not host:
            raise ValueError("it is empty")
        family, kind, protocol, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--host {host!r:.80} is no address to listen on ({error}): expected one of this machine, such as 127.0.0.1"
        ) from None
