"""The steps that a card allows: a formula against looking at each."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from citycover.plan.fit import _Rule

rules = st.builds(
    _Rule,
    largest=st.integers(1, 400),
    fixed=st.booleans(),
    multiple=st.sampled_from([1, 2, 3, 4, 8, 16, 48]),
    step_multiple=st.sampled_from([1, 2, 4, 6, 32]),
    trim=st.integers(0, 40),
    feather=st.integers(0, 40),
)


def looked_at(rule: _Rule) -> list[int]:
    steps = range(max(rule.feather, 1), rule.largest - rule.margins + 1)
    return [
        step
        for step in steps
        if step % rule.step_multiple == 0
        and (step + rule.margins) % rule.multiple == 0
        and (not rule.fixed or step + rule.margins == rule.largest)
    ]


@given(rules, st.integers(1, 3000))
def test_steps_are_those_that_the_card_allows_and_the_shortest_that_is_enough_is_taken(
    rule: _Rule, size: int
) -> None:
    allowed = looked_at(rule)
    assert list(rule.allowed()) == allowed
    if allowed:
        count = math.ceil(size / allowed[-1])
        assert rule.fit(size) == next(step for step in allowed if step * count >= size)
