"""A disk that takes no more bytes: the error names the file, and nothing half-written is left."""

import resource
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

from llbnad.purification.heat import write_heat
from llbnad.utils.files import replacing, write_csv, write_json, write_parquet

NUMBERS = np.random.default_rng(0).random(40_000)
WRITERS = {
    "json": lambda path: write_json({"numbers": NUMBERS.tolist()}, path),
    "csv": lambda path: write_csv(pd.DataFrame({"numbers": NUMBERS}), path),
    "parquet": lambda path: write_parquet(pd.DataFrame({"numbers": NUMBERS}), path),
    "safetensors": lambda path: write_heat({"a" * 64: NUMBERS.reshape(200, 200)}, path),
}


@pytest.fixture
def small_files() -> Iterator[None]:
    """Let this process write no file of more than 50 kB, with the error that the system gives then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("kind", WRITERS)
def test_the_error_names_the_file(tmp_path, small_files, kind):
    path = tmp_path / f"table.{kind}"
    with pytest.raises(OSError, match="File too large") as caught:
        WRITERS[kind](path)
    assert caught.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []


def test_an_error_that_names_its_file_stays_as_it_is(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, replacing(tmp_path / "a"):
        (tmp_path / "missing").read_bytes()
    assert caught.value.filename == str(tmp_path / "missing")


@pytest.mark.parametrize(
    ("module", "replaced"),
    [("orchestration.__main__", "door.application = lambda *names: app"), ("llbnad.cli", "door.app = app")],
)
def test_a_command_says_it_in_one_line(tmp_path, module, replaced):
    (tmp_path / "file").touch()
    code = f"import {module} as door\ndef app(*arguments, **named): open('file/below')\n{replaced}\ndoor.main()"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: [Errno 20] Not a directory: 'file/below'\n"
