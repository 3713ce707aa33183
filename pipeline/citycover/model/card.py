"""ModelCard: what a network needs and gives. It travels inside the model file as a STAC MLM item.

The card is what joins the side that trains to the side that maps; nothing else does.
All lengths are in pixels of the finest band group.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)

from citycover.classes.legend import Legend, read_legend

Dtype = Literal["uint8", "uint16", "int16", "float32"]

Scale = Annotated[
    Fraction,
    BeforeValidator(lambda v: Fraction(str(v))),
    PlainSerializer(str, return_type=str),
]
"""A positive fraction, written "1", "5" or "1/60"."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BandGroup(_Value):
    """Bands that share one grid; the network gets one (n, band, y, x) tensor for each group, in order."""

    name: str = "image"
    bands: tuple[tuple[str, ...], ...] = Field(min_length=1)
    """One entry a band, in the order of the network; an entry lists the names that it answers to,
    the canonical one first (`["nir", "B08", "B8A"]`)."""
    ratio: int = Field(default=1, ge=1)
    """Pixel size as a multiple of the finest group's (Sentinel-2: 1, 2, 6)."""
    dtypes: tuple[Dtype, ...] = Field(min_length=1)
    """Pixel types of files that the network understands; the tensor has the file's type for uint8 and
    float32 for all others, always raw digital numbers."""
    value_range: tuple[float, float] | None = None
    """Lowest and highest digital number that makes sense; None where any does."""
    fill: tuple[float, ...] = ()
    """One digital number a band, put where pixels are invalid; empty means 0 for each."""

    @model_validator(mode="before")
    @classmethod
    def _names(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("bands"), list | tuple):
            data = dict(data)
            data["bands"] = [(b,) if isinstance(b, str) else b for b in data["bands"]]
        return data

    @model_validator(mode="after")
    def _consistent(self) -> BandGroup:
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

    size: int = Field(ge=1)
    """The size to use unless something better is known."""
    fixed: bool = False
    """True: no other size works."""
    multiple: int = Field(default=1, ge=1)
    """Sizes are multiples of this."""
    maximum: int = Field(default=4096, ge=1)
    """Largest size that makes sense."""


class ModelCard(_Value):
    """What a network needs and gives."""

    name: str
    version: str = "1"
    description: str = ""
    groups: tuple[BandGroup, ...] = Field(min_length=1)
    gsd: tuple[float, float] | None = None
    """Smallest and largest ground sample distance in metres that the network was made for; None: any."""
    native_gsd: float | None = None
    """The GSD it was trained at, in metres: what `--resample` reads at."""
    window: WindowRule
    stride: int = Field(default=1, ge=1)
    """Network stride: distance of windows and trim + feather are multiples of it."""
    trim: int = Field(ge=0)
    """Pixels at each side of a window that padding contaminates: they never vote."""
    feather: int = Field(ge=0)
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
    """Legend id of each output channel; empty: the legend's own order."""
    legend: Annotated[Legend, BeforeValidator(lambda v: read_legend(v) if isinstance(v, str) else v)]
    """Classes; a card.toml may name a built-in legend instead."""
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
    licence: str = "Apache-2.0"

    @model_validator(mode="after")
    def _consistent(self) -> ModelCard:
        if not self.channels:
            object.__setattr__(self, "channels", self.legend.ids)
        stray = [c for c in self.channels if c not in self.legend.ids]
        if stray:
            raise ValueError(f"channels name ids that are not in the legend: {stray}")
        if self.groups[0].ratio != 1:
            raise ValueError("the first band group must be the finest one, ratio 1")
        if self.output_scale <= 0:
            raise ValueError("output_scale must be positive")
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
        return self

    @cached_property
    def bands(self) -> int:
        """Bands of all groups together."""
        return sum(len(g.bands) for g in self.groups)
