"""Reading ahead changes only the time it takes."""

import threading
import time

import pytest

from llbnad.utils.prefetch import AHEAD, AT_ONCE, each, prefetch

BATCHES = [[0, 1, 2], [3], [4, 5], [6], [7], [8, 9]]


def test_results_come_in_order_whatever_is_ready_first():
    def load(item: int) -> int:
        time.sleep(0.02 * (item % 3 == 0))
        return 10 * item

    assert list(prefetch(load, BATCHES)) == [[10 * item for item in batch] for batch in BATCHES]
    assert list(prefetch(load, [])) == []


def test_only_the_next_batches_are_read():
    loaded, before = [], threading.enumerate()
    running = prefetch(loaded.append, ([number] for number in range(100)))
    next(running)
    assert len(loaded) <= 1 + AHEAD
    running.close()
    assert len(loaded) <= 1 + AHEAD
    assert threading.enumerate() == before  # its readers have ended


def test_an_error_comes_where_its_result_would_have_been():
    def load(item: int) -> int:
        if item == 4:
            raise ValueError("four")
        return item

    running = prefetch(load, BATCHES)
    assert [next(running), next(running)] == BATCHES[:2]
    with pytest.raises(ValueError, match="four"):
        next(running)


def test_each_keeps_the_order_and_is_never_far_ahead():
    loaded = []
    found = each(lambda item: loaded.append(item) or 2 * item, range(10 * AT_ONCE))
    first = next(found)
    assert first == 0 and len(loaded) <= (1 + AHEAD) * AT_ONCE
    assert [first, *found] == [2 * item for item in range(10 * AT_ONCE)]
    assert list(each(loaded.append, [])) == []
