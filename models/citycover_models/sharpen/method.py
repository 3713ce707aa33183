"""Which method of training: plain cross-entropy, unless another is asked for.

Methods that select among labels are the papers' answer to labels that are noisy. In trainings of minutes they
were measured to lower maps, on noisy labels too (docs/training.md), so none is taken by itself.
"""

from __future__ import annotations

from citycover.errors import ConfigError
from citycover_models.methods.table import METHODS
from citycover_models.training.recipe import Recipe, read_recipe


def recipe_of(recipe: str, method: str, changes: tuple[str, ...]) -> Recipe:
    """The recipe of the training.

    Args:
        recipe: name or file.
        method: `auto`, `recipe` (its own) or the name of a method.
        changes: overrides of the recipe.

    Raises:
        ConfigError: there is no such recipe or method, or a change makes no sense.
    """
    if method not in ("auto", "recipe", *METHODS):
        raise ConfigError(f"--method takes auto, recipe, {', '.join(METHODS)}; got {method!r}")
    if method == "recipe":
        return read_recipe(recipe, changes)
    return read_recipe(recipe, [f"method.name={'ce' if method == 'auto' else method}", *changes])


def reason_for(recipe: Recipe, method: str) -> str:
    """Why the recipe has its method, for the report."""
    if method == "auto" and recipe.method.name == "ce":
        return "plain cross-entropy: methods that select among labels lowered maps in trainings of minutes"
    return "asked for"
