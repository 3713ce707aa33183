from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from citycover.evidence.rule import Rule


def test_clean_labels_bind_and_noisy_ones_are_doubted() -> None:
    assert (Rule(0.0).strength, Rule(0.0).sigma) == (0.5, 0.0)
    assert (Rule(0.1).strength, Rule(0.1).sigma) == (0.5, 0.0)
    assert Rule(0.15).strength == 0.875
    assert Rule(0.15).sigma == pytest.approx(0.525)
    assert (Rule(1.0).strength, Rule(1.0).sigma) == pytest.approx((1.25, 0.7))


@given(one=st.floats(0, 1), other=st.floats(0, 1))
def test_more_noise_never_means_more_trust(one: float, other: float) -> None:
    less, more = Rule(min(one, other)), Rule(max(one, other))
    assert less.strength <= more.strength
    assert less.sigma <= more.sigma


def test_noise_is_a_share() -> None:
    with pytest.raises(ValueError, match=r"0 to 1, got 1\.2"):
        Rule(1.2)


def test_confidence_is_sharpened_where_labels_are_noisy_and_held_back_where_nobody_knows() -> None:
    assert [Rule(noise).sharpness for noise in (0.0, 0.1, 0.2, 1.0)] == [1, 1, 1.375, 1.375]
    assert Rule(0.15).sharpness == 1.25
    assert Rule(0.0, measured=False).sharpness == 0.75
