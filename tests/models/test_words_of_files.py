"""Whatever stands in a file that users write: what is wrong is said in words of the file, never of Python."""

from __future__ import annotations

import copy
import datetime as dt
import math
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from citycover.classes.legend import parse_legend
from citycover.errors import CitycoverError
from citycover.evidence import catalogue
from citycover.files.configs import config_path
from citycover.model.mlm import parse_card
from citycover.region import config
from citycover.scene import stated
from citycover.scene.trust import Trust
from citycover_models.training.recipe import parse_recipe

REGION = """
[mosaic]
grid = "EPSG:32633/1"
tile = 64
[where]
bbox = [1.0, 2.0, 3.0, 4.0]
[imagery]
bands = ["1"]
nodata = 0
measure = { scale = 1.0, unit = "dn" }
laying = { overlap = "first", grid = "EPSG:32633" }
masking = { rules = ["scl"], grow = 30.0 }
[engine]
block = [256, 256]
form = "auto"
[labels]
files = ["worldcover"]
legend = "worldcover"
[refine]
majority = 3
burn = [["lakes.gpkg", "Water"]]
"""

SCENE = """
[[files]]
path = "a.tif"
bands = ["red"]
time = 2024-05-31T10:30:00Z
nodata = 0
scale = 0.1
unit = "reflectance"
"""

CARD = """
name = "a"
trim = 4
feather = 8
legend = "base4"
output_scale = "1/2"
gsd = [1.0, 2.0]
trained_prior = [0.5, 0.5, 0.5, 0.5]
[window]
size = 64
[[groups]]
bands = ["red", ["nir", "B08"]]
dtypes = ["uint8"]
value_range = [0.0, 255.0]
"""

PYTHONS = re.compile(
    r"Input|Extra|Value|Tuple|tuple|dict|literal\[|Field|argument|attribute|isoformat|None|class '|object"
)
"""Words of Pydantic and Python."""

ODD = [3, 1.5, -1, math.nan, True, "x", "", [], [3], ["x"], [[]], {}, {"a": 1}, dt.date(2024, 1, 1)]
"""What TOML can say."""


def shipped(folder: str, name: str) -> dict[str, Any]:
    return tomllib.loads(config_path(folder, f"{name}.toml").read_text())


FILES: dict[str, tuple[Callable[[], dict[str, Any]], Callable[[dict[str, Any]], object]]] = {
    "region": (
        lambda: shipped("regions", "example") | tomllib.loads(REGION),
        lambda _: config.read_region(Path("region.toml")),
    ),
    "scene": (
        lambda: tomllib.loads(SCENE),
        lambda _: list(stated.stated_rasters(Path("scene.toml"), Trust())),
    ),
    "labels": (
        lambda: shipped("labels", "worldcover"),
        lambda _: catalogue.product_asked_for("own.toml"),
    ),
    "legend": (lambda: shipped("legends", "base4"), lambda data: parse_legend(data, "own")),
    "card": (lambda: tomllib.loads(CARD), lambda data: parse_card(data, "own")),
    "recipe": (lambda: {"name": "own"} | shipped("recipes", "lovecs-light"), parse_recipe),
}


def changed(data: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The data with one value that is another, lacks, or is too many."""
    for place in places(data):
        for odd in ODD:
            other = copy.deepcopy(data)
            inside(other, place[:-1])[place[-1]] = odd
            yield f"{place} = {odd!r}", other
        other = copy.deepcopy(data)
        del inside(other, place[:-1])[place[-1]]
        yield f"without {place}", other
        if isinstance(inside(data, place), dict):
            other = copy.deepcopy(data)
            inside(other, place)["odd"] = 1
            yield f"{place} with odd", other


def places(value: Any) -> Iterator[tuple[str | int, ...]]:
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield (key,)
        yield from ((key, *more) for more in places(value[key]))


def inside(data: Any, place: tuple[str | int, ...]) -> Any:
    for part in place:
        data = data[part]
    return data


@pytest.mark.parametrize("kind", FILES)
def test_what_is_wrong_is_said_in_words_of_the_file(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, read = FILES[kind]
    said: dict[str, str] = {}
    for what, data in changed(whole()):
        for module in (config, stated, catalogue):
            monkeypatch.setattr(module, "read_toml", lambda *_, data=data: data)
        try:
            read(data)
        except CitycoverError as error:
            said[what] = str(error)
    assert len(said) > 20
    assert not {what: words for what, words in said.items() if PYTHONS.search(words)}
