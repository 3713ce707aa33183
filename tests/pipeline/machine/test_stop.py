"""A stop of a part is none of the whole; a stop of the whole is one of each part."""

from __future__ import annotations

import threading

import pytest

from citycover.machine.stop import PartialStop


@pytest.mark.parametrize("of_the_whole", [False, True])
def test_a_part_ends_alone_or_with_the_whole_and_wakes_who_waits(of_the_whole: bool) -> None:
    whole = threading.Event()
    part, other = PartialStop(whole), PartialStop(whole)
    assert not part.is_set() and not part.wait(0.01)
    threading.Timer(0.05, (whole if of_the_whole else part).set).start()
    assert part.wait() and part.is_set() and part.wait(0)
    assert whole.is_set() == other.is_set() == other.wait(0) == of_the_whole
