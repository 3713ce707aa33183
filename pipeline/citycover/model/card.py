"""ModelCard: what a network needs and gives. It travels inside the model file as a STAC MLM item.

The card is what joins the side that trains to the side that maps; nothing else does.
All lengths are in pixels of the finest band group.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)

from citycover.classes.legend import Legend, builtin_legend, check_line
from citycover.model.kernel import Kernel
from citycover.model.unit import Unit

UNTRAINED = "none: random weights"
"""How `training` begins where nothing was learned."""

Dtype = Literal["uint8", "uint16", "int16", "float32"]

_LONGEST = 65_536
"""Pixels: no window, trim or stride is longer. Numbers are bounded before anything is computed with them."""
_SCALE = re.compile(r"\d{1,4}(/\d{1,4})?|\d{1,4}\.\d{1,6}")


def _scale(value: object) -> Fraction:
    text = str(value).strip()
    if not _SCALE.fullmatch(text) or not (scale := _fraction(text)):
        raise ValueError(f'a scale is a positive fraction such as "1", "5" or "1/60", got {text[:40]!r}')
    return scale


def _fraction(text: str) -> Fraction | None:
    try:
        return Fraction(text)
    except ZeroDivisionError:
        return None


Scale = Annotated[Fraction, BeforeValidator(_scale), PlainSerializer(str, return_type=str)]
"""A positive fraction, written "1", "5" or "1/60"."""
Length = Annotated[int, Field(ge=0, le=_LONGEST)]
"""Pixels."""
Line = Annotated[str, Field(max_length=500), AfterValidator(check_line)]
"""Text of one line, printable."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BandGroup(_Value):
    """Bands that share one grid; the network gets one (n, band, y, x) tensor for each group, in order."""

    name: Line = "image"
    bands: tuple[tuple[Line, ...], ...] = Field(min_length=1, max_length=1000)
    """One entry a band, in the order of the network; an entry lists the names that it answers to,
    the canonical one first (`["nir", "B08", "B8A"]`)."""
    ratio: int = Field(default=1, ge=1, le=1000)
    """Pixel size as a multiple of the finest group's (Sentinel-2: 1, 2, 6)."""
    dtypes: tuple[Dtype, ...] = Field(min_length=1)
    """Pixel types of files that the network understands; the tensor has the file's type for uint8 and
    float32 for all others, always raw digital numbers."""
    value_range: tuple[float, float] | None = None
    """Lowest and highest digital number that makes sense; None where any does."""
    unit: Unit = "dn"
    """What the network's numbers are: `unit_scale * number + unit_offset` in this unit. Where a scene says
    the same of its own, its numbers become those of the network; dn: they are taken as the file has them."""
    unit_scale: float = Field(default=1.0, allow_inf_nan=False)
    unit_offset: float = Field(default=0.0, allow_inf_nan=False)
    kernel: Kernel | None = None
    """How bands that lie on another grid than the group's are warped onto it: nearest, bilinear, cubic or
    average; None: averaged where they are finer, else bilinear."""
    fill: tuple[float, ...] = ()
    """One digital number a band, put where pixels are invalid; empty means 0 for each."""
    missing: Literal["refuse", "fill"] = "refuse"
    """What becomes of a scene that has none of the bands: refused; or `fill` takes their place everywhere,
    for networks that learned to do without them."""

    @model_validator(mode="before")
    @classmethod
    def _names(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("bands"), list | tuple):
            data = dict(data)
            data["bands"] = [(b,) if isinstance(b, str) else b for b in data["bands"]]
        return data

    @model_validator(mode="after")
    def _consistent(self) -> BandGroup:
        if self.unit_scale == 0:
            raise ValueError("unit_scale is 0; a unit's value is unit_scale * number + unit_offset")
        if self.fill and len(self.fill) != len(self.bands):
            raise ValueError(f"fill has {len(self.fill)} numbers for {len(self.bands)} bands")
        return self

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Canonical band names."""
        return tuple(b[0] for b in self.bands)

    @cached_property
    def fills(self) -> tuple[float, ...]:
        """One fill number a band."""
        return self.fill or (0.0,) * len(self.bands)


class WindowRule(_Value):
    """Which window sizes the network takes."""

    size: int = Field(ge=1, le=_LONGEST)
    """The size to use unless something better is known."""
    fixed: bool = False
    """True: no other size works."""
    multiple: int = Field(default=1, ge=1, le=_LONGEST)
    """Sizes are multiples of this."""
    maximum: int = Field(default=4096, ge=1, le=_LONGEST)
    """Largest size that makes sense."""

    def why_not(self, size: int) -> str:
        """What the network takes instead of windows of a size, and the nearest; empty: it takes them."""
        if self.fixed and size != self.size:
            return f"takes windows of {self.size} only, got --window {size}"
        if size % self.multiple == 0 and size <= self.maximum:
            return ""
        near = min(-(-size // self.multiple), self.maximum // self.multiple) * self.multiple
        return (
            f"takes windows that are multiples of {self.multiple} up to {self.maximum}, got --window {size}; "
            f"the nearest that fits is {near}"
        )


class ModelCard(_Value):
    """What a network needs and gives."""

    name: Line
    version: Line = "1"
    description: str = ""
    groups: tuple[BandGroup, ...] = Field(min_length=1)
    gsd: tuple[float, float] | None = None
    """Smallest and largest ground sample distance in metres that the network was made for; None: any."""
    native_gsd: float | None = None
    """The GSD it was trained at, in metres: what `--resample` reads at."""
    window: WindowRule
    stride: int = Field(default=1, ge=1, le=_LONGEST)
    """Network stride: distance of windows and trim + feather are multiples of it."""
    trim: Length
    """Pixels at each side of a window that padding contaminates: they never vote."""
    feather: Length
    """Width of the raised cosine over which neighbours hand over."""
    disagreement: float | None = Field(default=None, ge=0, le=1)
    """Share of pixels deeper than `trim` whose class hung on where the window lay, as the export measured it
    on shifted windows of random texture; None: not measured."""
    output_scale: Scale = Fraction(1)
    """Output pixels per input pixel along one axis: 1, 5 or 1/60."""
    task: Literal["classes", "labels"] = "classes"
    """`classes`: one of K (softmax); `labels`: any of K (sigmoid)."""
    activation: Literal["logits", "probabilities"] = "logits"
    """What comes out of the network."""
    channels: tuple[int, ...] = ()
    """Legend id of each channel of probability; empty: the legend's own order."""
    background: int | None = None
    """Id of the class that is the absence of the only other one: the network gives one channel p (or its
    logit), and the background gets 1 - p, so it is mapped where p < 0.5."""
    legend: Annotated[Legend, BeforeValidator(lambda v: builtin_legend(v) if isinstance(v, str) else v)]
    """Classes; a card may name a built-in legend instead: never a file, for cards come from strangers."""
    receptive_field: int | None = None
    """Side of the square of input that one output pixel sees; None: unknown or everything."""
    precision: Literal["any", "fp32"] = "any"
    """`fp32`: reduced precision was tried and changes the map."""
    offset_tag: str | None = None
    """What the user must know about digital numbers, e.g. the offset of a processing baseline."""
    training: str = ""
    """What it was trained on, or how its rules were made."""
    sources: tuple[str, ...] = ()
    """Papers and records behind it."""
    licence: str = "not said"
    trained_prior: tuple[Annotated[float, Field(ge=0, le=1)], ...] = ()
    """Mean probability that the network gives each channel on chips drawn evenly from what it was trained on;
    0: no label of training meant the class. Empty: not measured, and labels cannot be evidence beside it."""
    label_legend: Line = ""
    """Legend of the labels that it learned from; empty: not known."""
    label_noise: float | None = Field(default=None, ge=0, le=1)
    """Share of those, held out, that the network contradicts where it is surest; None: not measured."""
    label_cells: int = Field(default=0, ge=0)
    """Labelled cells that `label_noise` rests on."""
    trained_on: tuple[tuple[float, float, float, float], ...] = Field(default=(), max_length=10_000)
    """West, south, east, north in degrees of the images that it learned from."""

    @model_validator(mode="after")
    def _consistent(self) -> ModelCard:
        if not self.channels:
            object.__setattr__(self, "channels", self.legend.ids)
        stray = [c for c in self.channels if c not in self.legend.ids]
        if stray:
            raise ValueError(f"channels name ids that are not in the legend: {stray}")
        if self.groups[0].missing == "fill":
            raise ValueError(
                "the first band group is what a scene is: it cannot be missing; put another first"
            )
        if self.groups[0].ratio != 1:
            raise ValueError("the first band group must be the finest one, ratio 1")
        self._check_background()
        if (self.trim + self.feather) % self.stride:
            raise ValueError(
                f"trim + feather = {self.trim + self.feather} is not a multiple of stride {self.stride}"
            )
        step = self.window.size - 2 * self.trim - self.feather
        if step < max(1, self.feather):
            raise ValueError(
                f"window {self.window.size} leaves a step of {step} after trim {self.trim} and feather "
                f"{self.feather}; it must be at least the feather"
            )
        if self.window.size % self.window.multiple or step % self.stride:
            raise ValueError(
                f"window {self.window.size} must be a multiple of {self.window.multiple} and its step {step} "
                f"a multiple of stride {self.stride}"
            )
        for group in self.groups:
            if self.stride % group.ratio or self.trim % group.ratio or self.feather % group.ratio:
                raise ValueError(f"stride, trim and feather must be multiples of ratio {group.ratio}")
        for what, length in (("trim", self.trim), ("feather", self.feather), ("step", step)):
            if (length * self.output_scale).denominator != 1:
                raise ValueError(f"{what} {length} x output_scale {self.output_scale} is not a whole number")
        self.legend.check_product()
        if self.trained_prior and len(self.trained_prior) != len(self.channels):
            raise ValueError(
                f"trained_prior has {len(self.trained_prior)} numbers for {len(self.channels)} channels"
            )
        return self

    def _check_background(self) -> None:
        if self.background is None and len(self.channels) == 1:
            raise ValueError(
                "one channel cannot be a map: there is nothing that it could be instead; give the legend a "
                "second class for what is not the first, and name its id as background"
            )
        if self.background is not None and (len(self.channels) != 2 or self.background not in self.channels):
            raise ValueError(
                f"background {self.background} needs a legend of two classes, of which it is one; got "
                f"channels {list(self.channels)}"
            )

    instead: ClassVar[str] = "choose another model"
    """What may be done where imagery is not what the model needs, in words."""

    @property
    def called(self) -> str:
        """The model in words: what imagery lacks is told of it."""
        return f"model '{self.name}'"

    @cached_property
    def channel_names(self) -> tuple[str, ...]:
        """Name of the class of each channel of probability."""
        names = dict(zip(self.legend.ids, self.legend.names, strict=True))
        return tuple(names[id_] for id_ in self.channels)

    @cached_property
    def scores(self) -> int:
        """Channels that the network gives: those of the map, or one where the other is its absence."""
        return len(self.channels) if self.background is None else 1

    @property
    def untrained(self) -> bool:
        """The weights are random: what the network gives means nothing."""
        return self.training.startswith(UNTRAINED)

    @cached_property
    def bands(self) -> int:
        """Bands of all groups together."""
        return sum(len(g.bands) for g in self.groups)
