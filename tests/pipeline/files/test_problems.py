"""What is wrong with a file is said in its own words, with its place."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from citycover.files.problems import problems_of


class Tiled(BaseModel):
    kind: Literal["tiled"] = "tiled"
    tiles: Annotated[int, Field(gt=0)] = 1


class Green(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["green"] = "green"
    plants: tuple[str, ...] = ()


@dataclass
class Wall:
    height: float = 1.0
    colour: Literal["red", "blue"] | Literal["none"] = "none"
    base: tuple[int, int] = field(default=(0, 0))


class House(BaseModel):
    model_config = ConfigDict(extra="forbid")
    roof: Annotated[Tiled | Green, Field(discriminator="kind")] = Tiled()
    wall: Wall | None = None
    doors: int | tuple[int, ...] = 1
    rooms: dict[int, str] = {}
    floors: Annotated[int, Field(ge=1, le=1_000_000)] = 1

    @model_validator(mode="after")
    def _stands(self) -> Self:
        if self.floors > 90:
            raise ValueError("it would fall over; give 90 at most")
        return self


class Street(BaseModel):
    houses: Annotated[tuple[House, ...], Field(min_length=1)]


def said(whole: str = "", **values: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        Street.model_validate({"houses": [values]})
    return problems_of(caught.value, Street, whole)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"floors": "two"}, "floors: should be a whole number, got 'two'"),
        ({"floors": 0}, "floors: should be 1 or more, got 0"),
        ({"floors": 2_000_000}, "floors: should be 1,000,000 or less, got 2000000"),
        ({"floors": 99}, "it would fall over; give 90 at most"),
        ({"wall": "red"}, "wall: should be a table, [houses.wall] with keys below it, got 'red'"),
        ({"wall": {"base": 3}}, "wall.base: should be a list, [...], got 3"),
        ({"wall": {"base": [3]}}, "wall.base.1: is missing"),
        ({"wall": {"colour": 3}}, "wall.colour: should be 'red' or 'blue' or 'none', got 3"),
        ({"wall": {"hight": 3}}, "wall.hight: is no key here, known are height, colour, base"),
        ({"doors": {"a": 1}}, "doors: should be a whole number or a list, [...], got {'a': 1}"),
        ({"doors": [1, "x"]}, "doors.1: should be a whole number, got 'x'"),
        ({"rooms": {"hall": "x"}}, "rooms.hall: should be a whole number, got 'hall'"),
        ({"roof": {"kind": "flat"}}, "roof.kind: should be 'tiled', 'green', got 'flat'"),
        ({"roof": {}}, "roof.kind: is missing"),
        ({"roof": {"kind": "green", "trees": 1}}, "roof.trees: is no key here, known are kind, plants"),
        ({"roof": {"kind": "tiled", "tiles": 0}}, "roof.tiles: should be more than 0, got 0"),
        ({"street": 1}, "street: is no key here, known are roof, wall, doors, rooms, floors"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(values: dict[str, Any], words: str) -> None:
    head = "houses.0: " if words.startswith("it ") else "houses.0."
    assert said(**values) == head + words


def test_all_that_is_wrong_is_said_and_a_row_of_which_all_is_wrong_is_not_called_empty() -> None:
    assert said(floors=0, wall=1) == (
        "houses.0.wall: should be a table, [houses.wall] with keys below it, got 1; "
        "houses.0.floors: should be 1 or more, got 0"
    )
    with pytest.raises(ValidationError) as caught:
        Street.model_validate({"houses": []})
    assert problems_of(caught.value, Street) == "houses: should be a list of 1 or more, got []"
    with pytest.raises(ValidationError) as caught:
        Street.model_validate({"houses": ["a"]})
    assert problems_of(caught.value, Street) == (
        "houses.0: should be a table, [[houses]] with keys below it, got 'a'"
    )


def test_what_is_wrong_as_a_whole_may_be_named() -> None:
    with pytest.raises(ValidationError) as caught:
        House.model_validate({"floors": 99})
    assert problems_of(caught.value, House) == "it would fall over; give 90 at most"
    assert problems_of(caught.value, House, whole="house") == "house: it would fall over; give 90 at most"
