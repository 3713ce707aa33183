"""A sample as a user asks for it: how many points, shared out how, into which file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from citycover.classes.legend import Legend
from citycover.errors import ConfigError
from citycover.evaluate.estimate import sample_size
from citycover.evaluate.points import check_ending, write_sample
from citycover.evaluate.request import resolve_map
from citycover.evaluate.sample import Allocation, PointSample, count_strata, draw_sample, limits
from citycover.files.remote import Place
from citycover.product.folder import check_output
from citycover.scene.trust import Trust

logger = logging.getLogger(__name__)

_ERROR, _EXPECTED = 0.01, "0.8"
"""What a number of points is reckoned from where nothing is said."""

Follow = Callable[[str, float], None]
"""Told what is being done, and how far it is from 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRequest:
    """What a user asks for."""

    mapped: str | Place
    """Product folder, or class raster; on this machine, or `s3://bucket/prefix`."""
    output: Path
    """Points to write: .geojson or .csv."""
    points: int | None = None
    """How many; None: as many as `standard_error` takes."""
    allocation: Allocation = "proportional"
    standard_error: float = _ERROR
    """Wanted of the overall accuracy, as a share."""
    expected: str = _EXPECTED
    """User's accuracies that are expected: a share, or shares by class id as in `0.8,3=0.6`."""
    map_legend: str | None = None
    """Of a map that is no product."""
    seed: int = 0
    overwrite: bool = False
    """Replace points that may have been interpreted."""
    trust: Trust = field(default_factory=Trust)
    """Which files the map may name in turn."""


def sample_map(request: SampleRequest, follow: Follow = lambda _what, _share: None) -> PointSample:
    """Count the strata of a map, draw points and write them.

    Raises:
        ConfigError: the request makes no sense, or the file exists.
        MachineError: the points cannot be written.
    """
    check_ending(request.output)
    check_output(request.output, request.mapped)
    if request.points is not None and (request.standard_error, request.expected) != (_ERROR, _EXPECTED):
        raise ConfigError(
            "--points says how many are drawn, --standard-error and --expect what to reckon that from; give "
            "one of the two"
        )
    if request.output.exists() and not request.overwrite:
        raise ConfigError(
            f"{request.output} exists, and may hold someone's work; choose another -o, or --overwrite"
        )
    side = resolve_map(request.mapped, request.map_legend, request.trust)
    expected = expected_accuracies(request.expected, side.legend)
    pixels = count_strata(side.path, side.legend, lambda share: follow("counting pixels", share))
    points = request.points or _points_for(request, pixels, expected)
    sample = draw_sample(
        side.path, side.legend, pixels, points, request.allocation, request.seed,
        lambda share: follow("drawing points", share),
    )  # fmt: skip
    write_sample(sample, request.output)
    return sample


def _points_for(request: SampleRequest, pixels: Mapping[int, int], expected: Mapping[int, float]) -> int:
    """Points that give the standard error, within what the strata take."""
    total = sum(pixels.values())
    shares, accuracies = [n / total for n in pixels.values()], [expected[id_] for id_ in pixels]
    computed = sample_size(shares, accuracies, request.standard_error)
    least, most = limits(pixels, request.allocation)
    points = max(least, min(most, computed))
    if points != computed:
        logger.warning(
            "that standard error takes %d points; strata take %d to %d, so %d are drawn",
            computed, least, most, points,
        )  # fmt: skip
    return points


def expected_accuracies(text: str, legend: Legend) -> dict[int, float]:
    """Class id -> user's accuracy, of a text such as `0.8` or `0.8,3=0.6`.

    Raises:
        ConfigError: it is no such text, or names a class that the legend does not have.
    """
    expected = dict.fromkeys(legend.ids, 0.8)
    parts = [part.rpartition("=") for part in text.split(",")]
    try:
        for _, _, value in (part for part in parts if not part[1]):
            expected = dict.fromkeys(legend.ids, float(value))
        for id_, _, value in (part for part in parts if part[1]):
            if int(id_) not in expected:
                raise ConfigError(f"--expect names class {id_}, legend {legend.name!r} has {legend.ids}")
            expected[int(id_)] = float(value)
    except ValueError:
        raise ConfigError(f"--expect takes a share, or shares by class id: 0.8,3=0.6; got {text!r}") from None
    return expected
