"""`make ui`: if one of its servers cannot start, it says so and leaves no process behind."""

import socket

from tests.campaign.chain import processes_in
from tests.pipeline.conftest import COLD, command, make_workspace, wait_for


def test_a_server_that_ends_is_named_and_takes_the_other_with_it(tmp_path):
    folder = make_workspace(tmp_path / "workspace", {}, {})
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ui = [COLD, "-m", "orchestration", "ui", "--mlflow-port", port, "--dagster-port", port]
        done = command(folder, ui, cold=True, PYTHONPATH=str(folder))
    assert done.returncode == 1
    assert "has ended, its reason stands above" in done.stderr and "--mlflow-port" in done.stderr
    assert wait_for(lambda: not processes_in(folder.resolve()), 10)
