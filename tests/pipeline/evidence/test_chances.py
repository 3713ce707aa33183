"""Chances looked up in a table are those of the formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit

from citycover.evidence.chances import STEPS, Chances

CPU = torch.device("cpu")
ODDS, PRIOR = ((2.5, -1.0), (0.6, 0.4), (1.0, 0.0)), (0.1, 0.4, 0.0)


def test_chances_are_those_that_were_measured() -> None:
    p = torch.logspace(-5, 0, 3 * 40 * 50).view(3, 40, 50)
    got = Chances(ODDS, PRIOR, CPU)(p)
    assert torch.equal(got, got.round())
    for k, ((slope, base), prior) in enumerate(zip(ODDS[:2], PRIOR[:2], strict=True)):
        wanted = STEPS * expit(slope * np.log(p[k].numpy() / prior) + base)
        np.testing.assert_allclose(got[k].numpy(), wanted, atol=0.5 + STEPS * slope / 4 / 32)
    assert not got[2].any()  # training never had the class


@pytest.mark.parametrize("p", [0.0, -0.0, 1e-30, 1.0, 1.0000001, float("nan")])
def test_every_number_has_a_place(p: float) -> None:
    """Networks give a bit more than 1, and no number where there is no image."""
    got = Chances((), (0.5, 0.5), CPU)(torch.full((2, 3, 3), p))
    assert ((got >= 0) & (got <= STEPS)).all()
    if p < 0.1:
        assert not got.any()


def test_unmeasured_a_network_is_taken_at_its_word() -> None:
    p = torch.linspace(0.01, 1, 400).view(1, 20, 20)
    np.testing.assert_allclose(Chances((), (0.3,), CPU)(p), STEPS * p, atol=0.5 + STEPS / 64)
