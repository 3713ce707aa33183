"""Which method is trained, and why."""

from __future__ import annotations

import pytest

from citycover.errors import ConfigError
from citycover_models.sharpen.method import reason_for, recipe_of
from citycover_models.training.recipe import read_recipe

OWN = read_recipe("l2hnet-light")


def test_it_is_plain_unless_a_method_is_named() -> None:
    assert recipe_of("l2hnet-light", "auto", ()).method.name == "ce"
    assert recipe_of("l2hnet-light", "recipe", ()) == OWN
    assert recipe_of("paraformer-light", "plat", ()).method.name == "plat"
    assert recipe_of("l2hnet-light", "auto", ("method.name=cas-dva",)).method.name == "cas-dva"
    assert recipe_of("l2hnet-light", "auto", ("epochs=7",)).epochs == 7
    with pytest.raises(ConfigError, match="--method takes auto, recipe, ce"):
        recipe_of("l2hnet-light", "magic", ())


def test_the_reason_is_said() -> None:
    plain = recipe_of("l2hnet-light", "auto", ())
    assert reason_for(plain, "auto").startswith("plain cross-entropy: methods that select")
    assert reason_for(OWN, "recipe") == "asked for"
    changed = recipe_of("l2hnet-light", "auto", ("method.name=cas-dva",))
    assert reason_for(changed, "auto") == "asked for"
