"""`make ui`: if one of its servers cannot start, it says so and leaves no process behind."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from orchestration.__main__ import main
from orchestration.commands.ui import links, serve_together
from tests.campaign.chain import processes_in
from tests.pipeline.conftest import COLD, wait_for

SERVER = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'])"


@pytest.fixture
def kept_handlers():
    """Put back what the command does with signals."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_server_that_ends_is_named_and_takes_the_other_with_it(tmp_path, monkeypatch, capsys, kept_handlers):
    monkeypatch.chdir(tmp_path)
    lasting = [COLD, "-c", f"{SERVER}; open('ready', 'w'); time.sleep(300)"]
    ending = ["sh", "-c", "until [ -e ready ]; do sleep .1; done; exit 3"]
    with pytest.raises(SystemExit) as ended:
        serve_together([lasting, ending], dict(os.environ), "both have started")
    said = capsys.readouterr()
    assert ended.value.code == 1 and said.out == "both have started\n"
    assert said.err == "error: sh has ended, its reason stands above\n"
    assert wait_for(lambda: processes_in(tmp_path.resolve()) == [os.getpid()], 10)


def test_servers_end_by_themselves_where_sigint_is_ignored(tmp_path, monkeypatch, kept_handlers):
    """As in the background of a script; a server that inherits that would have to be killed."""
    monkeypatch.chdir(tmp_path)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    code = "import time\nopen('ready', 'w')\ntry:\n time.sleep(300)\nexcept KeyboardInterrupt:\n open('ended', 'w')"
    ending = ["sh", "-c", "until [ -e ready ]; do sleep .1; done; exit 3"]
    with pytest.raises(SystemExit):
        serve_together([[COLD, "-c", code], ending], dict(os.environ), "both have started")
    assert (tmp_path / "ended").exists()


@pytest.mark.parametrize("option", ["--dagster-port", "--mlflow-port", "both"])
def test_a_taken_port_is_one_clear_line_before_anything_starts(tmp_path, monkeypatch, capsys, option):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with socket.socket() as taken, socket.socket() as free:
        for one in (taken, free):
            one.bind(("127.0.0.1", 0))
        taken.listen()
        used, other = (str(one.getsockname()[1]) for one in (taken, free))
        free.close()
        options = {"--dagster-port": other, "--mlflow-port": other} | ({} if option == "both" else {option: used})
        given = [text for pair in options.items() for text in pair]
        monkeypatch.setattr(sys, "argv", ["orchestration", "ui", *given])
        with pytest.raises(SystemExit) as ended:
            main()
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    expected = f"--mlflow-port {other} is the port of --dagster-port too" if option == "both" else f"{option} {used} "
    assert line.startswith(f"error: {expected}") and line.endswith(": choose another")
    assert not (tmp_path / "mlflow" / "mlflow.db").exists() and processes_in(tmp_path.resolve()) == [os.getpid()]


def test_the_pages_worth_opening_are_told_when_the_servers_answer(tmp_path, monkeypatch, capfd, kept_handlers):
    monkeypatch.chdir(tmp_path)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serve = "import socket, time; time.sleep(.3); print('starting', flush=True); s = socket.create_server"
    ending = [COLD, "-c", f"{serve}(('127.0.0.1', {port})); s.accept(); time.sleep(1)"]
    said = links("http://127.0.0.1:3000", "http://127.0.0.1:5000")
    with pytest.raises(SystemExit):
        serve_together([ending], dict(os.environ), said, [("127.0.0.1", port)])
    assert capfd.readouterr().out == f"starting\n{said}\n"
    found = [word for word in said.split() if word.startswith("http")]
    assert [one.removeprefix("http://127.0.0.1:") for one in found] == [
        "3000/asset-groups", "3000/assets/purified", "5000/#/experiments"
    ]  # fmt: skip
    assert "python -m orchestration review SCENARIO --out review.html" in said


@pytest.mark.parametrize(("ending", "said"), [(signal.SIGINT, "ending both …\n"), (signal.SIGTERM, "")])
def test_ended_twice_it_ends_all_without_a_traceback(tmp_path, ending, said):
    """The second signal comes while the servers end: it neither shows a traceback nor leaves one of them behind."""
    slow = "import pathlib, signal, time; touch = lambda name: pathlib.Path(name).touch(); "
    slow += "signal.signal(signal.SIGINT, lambda *_: (touch('ending'), time.sleep(2), exit(0))); "
    slow += "touch('ready'); time.sleep(300)"
    program = "import os, sys; from orchestration.commands.ui import serve_together; "
    program += f"serve_together([[sys.executable, '-c', {slow!r}]], dict(os.environ), 'begun')"
    command = [COLD, "-c", f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {program}"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert wait_for((tmp_path / "ready").exists, 30)
        process.send_signal(ending)
        assert process.stdout.readline() == "begun\n" and (not said or process.stdout.readline() == said)
        assert wait_for((tmp_path / "ending").exists, 30)
        process.send_signal(ending)
        code, left = process.wait(30), processes_in(tmp_path.resolve())  # before the pipe ends with the last of them
        assert (code, left, process.stderr.read()) == (0, [], "")
