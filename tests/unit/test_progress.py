"""Progress: a bar on a terminal; elsewhere nothing of short steps, and one plain line per minute of long ones."""

import io
import re

import pytest

from llbnad.utils import progress
from llbnad.utils.progress import track


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def said(monkeypatch):
    """Go through five items; what was written to standard error, line by line."""

    def run(stream, total=None):
        monkeypatch.setattr("sys.stderr", stream)
        items = range(5) if total is None else iter(range(5))
        assert list(track(items, "work", total, unit="part")) == [0, 1, 2, 3, 4]
        return [line for line in re.split(r"[\r\n]", stream.getvalue()) if line.strip()]

    return run


def test_a_terminal_shows_a_bar_with_the_time_that_is_left(said):
    *_, last = said(Terminal())
    assert last.startswith("work: 100%|") and "5/5 [" in last and "part/s]" in last


def test_a_log_file_hears_nothing_of_a_short_step(said):
    assert said(io.StringIO()) == []


@pytest.mark.parametrize("total", [None, 5])
def test_a_log_file_hears_one_plain_line_at_a_time_of_a_long_step(said, monkeypatch, total):
    monkeypatch.setattr(progress, "LOG_SECONDS", 0)
    lines = said(io.StringIO(), total)
    assert re.fullmatch(r"work: 5 of 5 \(part\), \d\d:\d\d gone, 00:00 left *", lines[-1]), lines
    assert not any("|" in line or "%" in line for line in lines)
