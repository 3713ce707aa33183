"""Which method follows a first look, and why."""

from __future__ import annotations

import re

import pytest

from citycover.errors import ConfigError
from citycover.evidence.noise import LabelNoise
from citycover_models.sharpen.method import choose, first_look
from citycover_models.training.recipe import read_recipe

OWN = read_recipe("l2hnet-light")
FIRST = first_look("l2hnet-light", "auto", ())


def test_the_first_look_is_plain_unless_a_method_is_named() -> None:
    assert FIRST.method.name == "ce"
    assert first_look("l2hnet-light", "recipe", ()) == OWN
    assert first_look("paraformer-light", "plat", ()).method.name == "plat"
    assert first_look("l2hnet-light", "auto", ("method.name=cas-dva",)).method.name == "cas-dva"
    assert first_look("l2hnet-light", "auto", ("epochs=7",)).epochs == 7
    with pytest.raises(ConfigError, match="--method takes auto, recipe, ce"):
        first_look("l2hnet-light", "magic", ())


@pytest.mark.parametrize(
    ("noise", "said"),
    [
        (None, "too few labels were held out"),
        (LabelNoise(0.5, 999), "too few labels were held out"),
        (LabelNoise(0.07, 5000), "7% of the labels are contradicted where the network is surest: they count"),
        (LabelNoise(0.31, 5000), "31% of the labels .* noisy, but cas-dva was measured to lower such maps"),
    ],
)
def test_plain_cross_entropy_stays_and_says_why(noise: LabelNoise | None, said: str) -> None:
    choice = choose(FIRST, OWN, noise)
    assert choice.recipe is FIRST
    assert choice.method == "ce"
    assert re.search(said, choice.why)


def test_a_recipe_without_another_method_says_so() -> None:
    assert choose(FIRST, FIRST, LabelNoise(0.4, 5000)).why == "the recipe has no other"
