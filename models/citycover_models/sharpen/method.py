"""Which method of training: plain cross-entropy, unless a first look finds labels that are noisy.

The first look is a training with plain cross-entropy, which is what every selecting method begins with. Where
it contradicts many labels, the recipe's own method goes on from its weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from citycover.errors import ConfigError
from citycover.evidence.noise import LabelNoise
from citycover.evidence.rule import ENOUGH_CELLS
from citycover_models.methods.table import METHODS
from citycover_models.training.recipe import Recipe, read_recipe

NOISY = 0.2
"""Share of contradicted labels from which on they count as noisy, as where labels are weighed."""

GAINS: frozenset[str] = frozenset()
"""Selecting methods that were measured to raise maps from noisy labels in trainings of minutes."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A method, and why it was taken."""

    recipe: Recipe
    why: str
    again: bool = False
    """The recipe is trained after the first look, from its weights."""

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.recipe.method.name


def first_look(recipe: str, method: str, changes: tuple[str, ...]) -> Recipe:
    """The recipe of the first training; the only one, where a method is asked for.

    Args:
        recipe: name or file.
        method: `auto`, `recipe` or the name of a method.
        changes: overrides of the recipe.

    Raises:
        ConfigError: there is no such recipe or method, or a change makes no sense.
    """
    known = [kind.model_fields["name"].default for kind in METHODS if not kind.adapts]
    if method not in ("auto", "recipe", *known):
        raise ConfigError(f"--method takes auto, recipe, {', '.join(known)}; got {method!r}")
    if method == "recipe":
        return read_recipe(recipe, changes)
    return read_recipe(recipe, [f"method.name={'ce' if method == 'auto' else method}", *changes])


def choose(first: Recipe, own: Recipe, noise: LabelNoise | None) -> Choice:
    """What follows a first look with plain cross-entropy.

    Args:
        first: of the first look.
        own: the recipe with its own method.
        noise: of the labels, as the first look found it; None: nothing was held out.
    """
    method = own.method.name
    if method == first.method.name:
        return Choice(first, "the recipe has no other")
    if noise is None or noise.cells < ENOUGH_CELLS:
        return Choice(first, "too few labels were held out to measure their noise, so they count as clean")
    found = f"{noise.share:.0%} of the labels are contradicted where the network is surest"
    if noise.share < NOISY:
        return Choice(first, f"{found}: they count as clean, and selecting among them teaches less")
    if method not in GAINS:
        return Choice(first, f"{found}: they are noisy, but {method} was measured to lower such maps")
    again = own.model_copy(update={"method": own.method.model_copy(update={"warm_up": 0.0})})
    return Choice(again, f"{found}: they are noisy, so {method} selects among them", again=True)
