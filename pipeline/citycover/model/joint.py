"""MapModel: what maps a scene: one model file, or several whose probabilities are averaged; turned, or not.

Members see the same windows and are read once; each gives probabilities, which go to the classes of the
first, and are averaged by weight. A *turn* is a flip or a rotation: the network sees the window turned, and
what it says is turned back. No torch here: `model/ensemble.py` runs what this describes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from citycover.classes.table import NO_CLASS, ClassTable, table_between
from citycover.errors import ConfigError, ModelError
from citycover.files.problems import problems_of
from citycover.model.archive import ModelFile, read_model_file
from citycover.model.builtin import find_model
from citycover.model.card import BandGroup, ModelCard
from citycover.model.trusted import TRUSTED, check_trusted

Turns = Literal["none", "flips", "d4"]

TURNS: tuple[Turns, ...] = ("none", "flips", "d4")

_MOST = 32
"""Members of a map."""


@dataclass(frozen=True, slots=True)
class Member:
    """One network of several."""

    path: Path
    sha256: str
    card: ModelCard
    weight: float
    """Of all members together they are 1."""
    ranks: tuple[int, ...]
    """Place in the joint map of each of its own channels."""


@dataclass(frozen=True, slots=True, eq=False)
class MapModel:
    """What maps."""

    card: ModelCard
    """Of all together."""
    sha256: str
    """Of the model file; of several, or of one that is turned, of all that decides what they say."""
    members: tuple[Member, ...]
    turns: Turns = "none"

    @property
    def path(self) -> Path:
        """The first model file."""
        return self.members[0].path

    @property
    def alone(self) -> bool:
        """One network, which sees each window as it is."""
        return len(self.members) == 1 and self.turns == "none"

    @property
    def _key(self) -> tuple[Any, ...]:
        return self.sha256, self.turns, *((m.path, m.weight) for m in self.members)

    def __eq__(self, other: object) -> bool:
        """The same files say the same."""
        return isinstance(other, MapModel) and self._key == other._key

    def __hash__(self) -> int:
        """Of what tells it apart."""
        return hash(self._key)


def read_map_model(given: str | Path | Sequence[str | Path], turns: str = "none") -> MapModel:
    """What maps, by the cards of the models that are named.

    Args:
        given: a model file or the name of a built-in one, or several; each with `=WEIGHT` where it counts
            more or less than 1.
        turns: none, flips or d4.

    Raises:
        ConfigError: a weight is none, or the turns are unknown.
        ModelError: a model cannot be read, or they cannot be averaged.
    """
    names = (given,) if isinstance(given, str | Path) else given
    if len(names) > _MOST:
        raise ConfigError(f"got {len(names)} models; a map is made of {_MOST} at most")
    return join([_opened(str(name)) for name in names], turns)


def check_map_model(model: MapModel, required: str | None) -> None:
    """Raise unless its files are those that were asked for, and trusted: see `check_trusted`.

    Raises:
        ConfigError: one hash is asked of several files.
        ModelError: a file is another, or not trusted.
    """
    if required is not None and len(model.members) > 1:
        raise ConfigError(
            f"--require-hash is of one model file, and there are {len(model.members)}; list those that are "
            f"trusted in a file instead ({TRUSTED})"
        )
    for member in model.members:
        check_trusted(member.path, member.sha256, required)


def _opened(name: str) -> tuple[ModelFile, float]:
    file, equals, text = name.rpartition("=")
    if not equals or Path(name).is_file():
        return read_model_file(find_model(name)), 1.0
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not (math.isfinite(weight) and weight > 0):
        if text.endswith((".pt", ".pt2")):  # `runs/seed=3/model.pt`
            return read_model_file(find_model(name)), 1.0  # says that it is not there
        raise ConfigError(f"--model {name}: {text!r} is no weight; give one above 0, such as {file}=0.5")
    return read_model_file(find_model(file)), weight


def join(models: Sequence[tuple[ModelFile, float]], turns: str = "none") -> MapModel:
    """One map of several networks.

    Args:
        models: files and weights; the classes of the first are those of the map.
        turns: how each sees the windows beside as they are.

    Raises:
        ConfigError: the turns are unknown.
        ModelError: they need other bands, give other classes, or another scale of output.
    """
    known = next((one for one in TURNS if one == turns), None)
    if known is None:
        raise ConfigError(f"--tta takes {', '.join(TURNS)}; got {turns!r}")
    files, weights = zip(*models, strict=True)
    first: ModelFile = files[0]
    total = math.fsum(weights)
    members = tuple(
        Member(file.path, file.sha256, file.card, weight / total, _ranks(file.card, first.card))
        for file, weight in models
    )
    if len(members) == 1 and known == "none":
        return MapModel(first.card, first.sha256, members)
    told = [[(m.sha256, m.weight, m.ranks) for m in members], known]
    digest = hashlib.sha256(json.dumps(told).encode()).hexdigest()
    return MapModel(_joint_card(members, known), digest, members, known)


def _ranks(card: ModelCard, first: ModelCard) -> tuple[int, ...]:
    """Place of each channel of a network among those of the first."""
    if card.legend.ids == first.legend.ids and card.legend.names == first.legend.names:
        table = None
    elif card.task == "labels":
        raise ModelError(
            f"{card.name} has other classes than {first.name}; networks whose pixels may be of several "
            f"classes are averaged only where they have the same ones"
        )
    else:
        try:
            table = table_between(card.legend, first.legend)
        except ConfigError as error:
            raise ModelError(f"{card.name} cannot be averaged with {first.name}: {error}") from None
    lookup = ClassTable.onto(first.legend, table, order=first.channels)
    ranks = dict(zip(lookup.ids.tolist(), lookup.ranks.tolist(), strict=True))
    lost = [
        name
        for id_, name in zip(card.channels, card.channel_names, strict=True)
        if ranks.get(id_, NO_CLASS) < 0
    ]
    if lost:
        raise ModelError(
            f"{card.name} gives {', '.join(lost)}, which are no classes of {first.name}; name the model with "
            f"the coarser classes first, or map with one of them"
        )
    return tuple(ranks[id_] for id_ in card.channels)


def _joint_card(members: Sequence[Member], turns: Turns) -> ModelCard:
    cards = [member.card for member in members]
    first = cards[0]
    for other in cards[1:]:
        _check_alike(first, other)
    stride = reduce(math.lcm, (card.stride for card in cards))
    names = dict.fromkeys(card.name for card in cards)
    facts = first.model_dump() | {
        "name": " + ".join(names)[:400] + (f" ({turns})" if turns != "none" else ""),
        "groups": _groups(members),
        "gsd": _between([card.gsd for card in cards]),
        "native_gsd": first.native_gsd,
        "stride": stride,
        "trim": _up(max(card.trim for card in cards), stride),
        "feather": _up(max(card.feather for card in cards), stride),
        "window": _window(cards),
        "disagreement": None,
        "receptive_field": None,
        "activation": "probabilities",
        "channels": first.channels,
        "background": None,
        "precision": "fp32" if any(card.precision == "fp32" for card in cards) else "any",
        "training": next((c.training for c in cards if c.untrained), None)
        or "; ".join(dict.fromkeys(c.training for c in cards if c.training)),
        "sources": tuple(dict.fromkeys(source for card in cards for source in card.sources)),
        "licence": ", ".join(dict.fromkeys(card.licence for card in cards))[:500],
        "trained_prior": _prior(members),
        "label_legend": first.label_legend if len({c.label_legend for c in cards}) == 1 else "",
        "label_noise": None,  # that of one network is not that of several: it is measured on the scene
        "label_cells": 0,
        "trained_on": (),
        "legend": first.legend,
    }
    try:
        return ModelCard.model_validate(facts)
    except ValidationError as error:
        raise ModelError(
            f"{', '.join(names)} cannot be averaged: {problems_of(error, ModelCard)}; map with one of them"
        ) from None


def _check_alike(first: ModelCard, other: ModelCard) -> None:
    """Raise ModelError where two networks look at other things, or answer on another grid."""
    same: dict[str, Callable[[ModelCard], Any]] = {
        "bands": lambda card: [(g.names, g.ratio) for g in card.groups],
        "units of numbers": lambda card: [(g.unit, g.unit_scale, g.unit_offset) for g in card.groups],
        "scale of output": lambda card: card.output_scale,
        "kind of classes": lambda card: card.task,
    }
    for what, of in same.items():
        if of(first) != of(other):
            raise ModelError(
                f"{first.name} and {other.name} differ in {what}: {_words(of(first))} and "
                f"{_words(of(other))}; averaged networks see the same windows; map with each, or give "
                f"models of the same kind"
            )


def _words(value: object) -> str:
    return str(value).replace("'", "")


def _groups(members: Sequence[Member]) -> tuple[dict[str, Any], ...]:
    """Band groups that all networks take, filled with what each would be filled with, averaged by weight."""
    found = []
    for groups in zip(*(member.card.groups for member in members), strict=True):
        parts = zip(members, groups, strict=True)
        fills = [[member.weight * fill for fill in group.fills] for member, group in parts]
        found.append(_group(groups) | {"fill": tuple(map(math.fsum, zip(*fills, strict=True)))})
    return tuple(found)


def _group(groups: Sequence[BandGroup]) -> dict[str, Any]:
    first = groups[0]
    return first.model_dump() | {
        "bands": [
            [name for name in entry if all(name in group.bands[k] for group in groups)]
            for k, entry in enumerate(first.bands)
        ],
        "dtypes": tuple(d for d in first.dtypes if all(d in group.dtypes for group in groups)),
        "value_range": _between([group.value_range for group in groups]),
        "missing": "fill" if {(g.missing, g.fills) for g in groups} == {("fill", first.fills)} else "refuse",
    }


def _between(ranges: Sequence[tuple[float, float] | None]) -> tuple[float, float] | None:
    """What all ranges have in common; None where each takes any number."""
    known = [one for one in ranges if one is not None]
    return (max(low for low, _ in known), min(high for _, high in known)) if known else None


def _window(cards: Sequence[ModelCard]) -> dict[str, Any]:
    """Sizes that all networks take; the smallest of those that they would use."""
    rules = [card.window for card in cards]
    multiple = reduce(math.lcm, (rule.multiple for rule in rules))
    sizes = {rule.size for rule in rules if rule.fixed}
    if len(sizes) > 1:
        raise ModelError(
            f"{', '.join(card.name for card in cards)} take windows of "
            f"{', '.join(map(str, sorted(sizes)))} px and no others; "
            f"averaged networks see the same windows; map with one of them"
        )
    size = sizes.pop() if sizes else min(rule.size for rule in rules) // multiple * multiple
    return {
        "size": size,
        "fixed": any(rule.fixed for rule in rules),
        "multiple": multiple,
        "maximum": min(rule.maximum for rule in rules),
    }


def _up(length: int, stride: int) -> int:
    return -(-length // stride) * stride


def _prior(members: Sequence[Member]) -> tuple[float, ...]:
    """Mean prediction of all together; empty where one does not know its own."""
    if not all(member.card.trained_prior for member in members):
        return ()
    found = [0.0] * len(members[0].card.channels)
    for member in members:
        for rank, share in zip(member.ranks, member.card.trained_prior, strict=True):
            found[rank] += member.weight * share
    return tuple(min(1.0, share) for share in found)
