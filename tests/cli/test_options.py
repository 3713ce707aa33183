"""Groups of options are built once, for every verb that takes them."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from typing import Any

import pytest

from citycover.errors import ConfigError
from citycover.job.request import EngineOptions, Imagery, ProductOptions, Where
from citycover_cli import options
from citycover_cli.app import VERBS
from citycover_cli.verbs import map as map_verb
from citycover_cli.verbs import plan as plan_verb

NOT_FOR_PEOPLE = {"block", "tile"}
RENAMED = {"scene": "files", "allow_remote": "trust", "allow_path": "trust"}
RENAMED |= dict.fromkeys(("overlap", "grid", "resampling", "composite"), "laying")
RENAMED |= dict.fromkeys(("mask", "mask_grow"), "masking")
RENAMED |= dict.fromkeys(("scale", "offset", "unit"), "measure")


@pytest.mark.parametrize("group", [Imagery, Where, EngineOptions, ProductOptions])
def test_a_group_has_an_option_for_each_of_its_fields(group: type[Any]) -> None:
    make = {Imagery: options.imagery, Where: options.where, EngineOptions: options.engine}
    taken = inspect.signature(make.get(group, options.product)).parameters
    defaults = {f.name: f.default for f in fields(group)}
    assert {RENAMED.get(name, name) for name in taken} == set(defaults) - NOT_FOR_PEOPLE
    for name in set(taken) - set(RENAMED) - {"formats"}:
        assert taken[name].default == defaults[name]


def test_plan_takes_every_option_of_map_that_can_change_the_run() -> None:
    product = set(inspect.signature(options.product).parameters) | {
        "out",
        "skip_finished",
        "on_end",
        "each",
        "metrics",
        "otel",
    }
    mapped, planned = (set(inspect.signature(verb.run).parameters) for verb in (map_verb, plan_verb))
    assert mapped - planned == product and planned - mapped == {"probe"}


def test_options_become_their_group() -> None:
    found: list[object] = []

    @options.grouped
    def verb(*, where: Where, engine: EngineOptions, other: int = 3) -> None:
        found.extend([where, engine, other])

    given = {name: p.default for name, p in inspect.signature(verb).parameters.items()}
    verb(**(given | {"bbox": "1,2,3,4", "window": 64, "other": 5}))
    assert found == [Where(bbox=(1, 2, 3, 4)), EngineOptions(window=64), 5]
    with pytest.raises(ConfigError, match="as numbers"):
        verb(**(given | {"bbox": "1,2,three,4"}))


def test_help_shows_options_by_group(citycover) -> None:
    page = citycover("map", "--help").out
    titles = [
        line.split("\u2500 ")[1].split(" \u2500")[0] for line in page.splitlines() if "\u256d\u2500 " in line
    ]
    shared = ["Imagery", "Part of the scene", "Computing", "Product", "Labels of the place", "Further layers"]
    assert titles == ["Arguments", "Options", *shared, "Messages"]
    computing = page.partition("Computing")[2].partition("Product")[0]
    assert "<" not in page and re.search(r"--window +N \[x>=1\]", computing)
    assert "--workers" in computing and "--nodata" not in computing


def test_help_shows_every_verb_below_a_title(citycover) -> None:
    page = citycover("--help").out
    assert page.count("\u256d\u2500") == 5, "options, and four kinds of verbs"
    for verb in VERBS:
        assert f"\u2502 {verb} " in page
