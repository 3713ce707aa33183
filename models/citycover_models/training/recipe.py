"""Recipe: how a system is trained, as a value. What varies between papers stands in configs/recipes/."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from citycover.errors import ConfigError
from citycover.files.configs import config_names, find_config
from citycover.files.problems import problems_of
from citycover.files.toml import read_toml
from citycover_models.data.augment import Augment
from citycover_models.data.sampling import Balance
from citycover_models.methods.method import some
from citycover_models.methods.table import Method

_MANY = 1_000_000
"""More than anybody means."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Optimiser(_Value):
    """Which optimiser, and its numbers."""

    name: Literal["sgd", "adam", "adamw"] = "adamw"
    lr: float = Field(default=1e-3, gt=0, le=_MANY)
    """Learning rate at the start."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Of sgd."""
    weight_decay: float = Field(default=0.01, ge=0, le=_MANY)
    amsgrad: bool = False
    head_times: float = Field(default=1.0, gt=0, le=_MANY)
    """Learning rate of everything behind the encoder, in learning rates of the encoder."""
    no_decay: tuple[str, ...] = ()
    """Parameters whose names hold one of these are not decayed: `norm`, `pos_block`."""


class Schedule(_Value):
    """How the learning rate falls, step by step."""

    name: Literal["constant", "poly", "steps", "cosine", "plateau"] = "constant"
    power: float = Field(default=0.9, ge=0)
    """poly: lr (1 - step / steps) ** power, zero after the last step."""
    every: int = Field(default=1, ge=1, le=_MANY)
    """steps: epochs between falls. plateau: epochs without a better criterion before each, counted as for
    `patience`."""
    factor: float = Field(default=0.1, gt=0, le=1)
    """steps, plateau: what is left after each."""
    floor: float = Field(default=0.0, ge=0, le=_MANY)
    """Learning rate never falls below this."""
    warm_up: int = Field(default=0, ge=0, le=1000 * _MANY)
    """Steps over which the learning rate rises from near 0."""
    warm_up_from: float | None = Field(default=None, ge=0, le=1)
    """Share of the learning rate at which it begins to rise; None: one step's share."""
    hold: float = Field(default=0.0, ge=0, lt=1)
    """poly, cosine: share of the training before the learning rate falls. Held for the `warm_up` of a
    method that selects, it hands over at the full rate."""

    def rate(self, lr: float, step: int, steps: int, epoch: int, falls: int = 0) -> float:
        """Learning rate of a step; `falls` is how often the criterion stood still for `every` epochs.

        >>> Schedule(name="steps", every=8, factor=0.1).rate(1.0, 0, 10, 17)
        0.010000000000000002
        """
        held = self.hold * steps
        fallen = max(0.0, step - held) / (steps - held)
        if self.name == "poly":
            lr *= (1 - fallen) ** self.power
        elif self.name == "steps":
            lr *= self.factor ** (epoch // self.every)
        elif self.name == "cosine":
            lr *= 0.5 * (1 + math.cos(math.pi * fallen))
        elif self.name == "plateau":
            lr *= self.factor**falls
        return max(self.floor, lr) * self._rise(step)

    def _rise(self, step: int) -> float:
        if step >= self.warm_up:
            return 1.0
        if self.warm_up_from is None:
            return (step + 1) / self.warm_up
        return 1 - (1 - step / self.warm_up) * (1 - self.warm_up_from)


class Recipe(_Value):
    """How a network is trained."""

    name: str
    title: str = ""
    network: str
    """A preset of the registry; built for the bands and classes in hand."""
    method: Method
    source: str = ""
    """Where the numbers come from, and which are citycover's."""

    chip: int = Field(ge=16, le=8192)
    """Side of a training chip in pixels."""
    batch: int = Field(ge=1, le=_MANY)
    """Chips of a step, over all processes."""
    accumulate: int = Field(default=1, ge=1, le=_MANY)
    """Steps whose gradients are summed before the weights move."""
    epochs: int = Field(ge=1, le=_MANY)
    chips_per_epoch: int = Field(default=0, ge=0, le=1000 * _MANY)
    """Chips drawn in an epoch; 0: `chips_per_image` of every image."""
    chips_per_image: int = Field(default=50, ge=1, le=_MANY)
    balance: Balance = "uniform"
    rare_temperature: float = Field(default=0.01, ge=1e-6)
    """T of balance `rare`: the smaller, the more the rarest class is drawn."""
    rescale: Annotated[tuple[Annotated[float, Field(ge=0.1, le=10)], ...], AfterValidator(some)] = (1.0,)
    """Enlargements, one of which is drawn for each chip."""
    augment: Augment = Augment(symmetries=False)
    learn: Literal["all", "head"] = "all"
    """head: classifier and label branch of a fusion network alone; the rest stays as its weights are."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: pixels weigh by the inverse square root of their class's share, in every term that is a
    cross-entropy with the coarse label."""

    optimiser: Optimiser = Optimiser()
    schedule: Schedule = Schedule()
    clip: float | None = Field(default=None, gt=0)
    """Largest norm of the gradients; None: as they are."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay of the running mean of the weights, which is what is kept; None: the weights themselves."""
    amp: Literal["auto", "off"] = "auto"
    """auto: bf16 on devices that have it."""

    validation: float = Field(default=0.1, ge=0, lt=0.5)
    """Share of each image that is held out; the criterion is agreement with its coarse labels."""
    patience: int | None = Field(default=None, ge=1, le=_MANY)
    """Epochs without a better criterion after which training stops and the best weights are kept. Counted
    from where a method does what it is for: with the target in, after the warm-up."""

    @field_validator("chip")
    @classmethod
    def _fits_the_method(cls, chip: int, given: ValidationInfo) -> int:
        if "method" in given.data:  # else it was not valid
            given.data["method"].check_chip(chip)
        return chip

    def epoch_chips(self, images: int) -> int:
        """Chips of an epoch over so many images; a multiple of the batch."""
        chips = self.chips_per_epoch or self.chips_per_image * images
        return max(1, round(chips / self.batch)) * self.batch


def read_recipe(name_or_file: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A built-in recipe by name, or a file, with `key=value` overrides (`optimiser.lr=0.01`).

    Raises:
        ConfigError: no such recipe, or a key or value that makes no sense.
    """
    path = find_config("recipes", "recipe", name_or_file)
    data: dict[str, Any] = {"name": path.stem, **read_toml(path, "recipe")}
    for override in sorted(overrides, key=lambda o: not o.startswith(_METHOD)):  # it clears the others
        _set(data, override)
    return parse_recipe(data)


def parse_recipe(data: dict[str, Any]) -> Recipe:
    """Build a recipe from plain values.

    Raises:
        ConfigError: naming what is wrong, and the keys that are known where one is not.
    """
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        problems = problems_of(error, Recipe)
        raise ConfigError(f"recipe {data.get('name', '')!r} is not valid: {problems}") from None


def recipe_names() -> tuple[str, ...]:
    """Names of the built-in recipes."""
    return config_names("recipes")


_METHOD = "method.name="


def _set(data: dict[str, Any], override: str) -> None:
    """Put one value in its place; another method takes the whole table of the one before."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set takes key=value, got {override!r}")
    if override.startswith(_METHOD) and data.get("method", {}).get("name") != text:
        data["method"] = {}
    *parents, last = key.split(".")
    for parent in parents:
        inner = data.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {override}: {parent} holds a value, not a table")
        data = inner
    try:
        data[last] = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        data[last] = text
