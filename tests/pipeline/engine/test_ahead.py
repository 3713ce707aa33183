import threading
from collections.abc import Iterator

import pytest

from citycover.engine.ahead import Ahead


def test_what_ends_the_making_comes_after_all_that_was_made() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("no more")

    with Ahead(items(), "test") as ahead:
        numbers = iter(ahead)
        assert [next(numbers), next(numbers)] == [1, 2]
        with pytest.raises(OSError, match="no more"):
            next(numbers)


def test_it_is_never_more_than_two_items_ahead() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(20):
            made.append(number)
            yield number

    with Ahead(items(), "test") as numbers:
        for number in numbers:
            assert len(made) <= number + 3


def test_who_leaves_early_leaves_no_thread() -> None:
    before = threading.active_count()
    with Ahead(iter(int, 1), "inner") as inner, Ahead(iter(inner), "outer") as outer:
        assert next(iter(outer)) == 0
    assert threading.active_count() == before
