from pathlib import Path
from typing import Annotated, Self

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from citycover.errors import ConfigError, ModelError
from citycover.files.toml import problems_of, read_toml


class Roof(BaseModel):
    model_config = ConfigDict(extra="forbid")
    pitch: int
    tiles: list[int] = []

    @model_validator(mode="after")
    def _stands(self) -> Self:
        if self.pitch > 90:
            raise ValueError("it would fall over; give 90 at most")
        return self


class Town(BaseModel):
    roofs: Annotated[tuple[Roof, ...], Field(min_length=1)]
    streets: Annotated[tuple[str, ...], Field(min_length=1)]


def test_every_value_that_is_wrong_is_named_with_its_place() -> None:
    with pytest.raises(ValidationError) as caught:
        Roof.model_validate({"pitch": 3, "tiles": [1, "red"], "colour": 1})
    place, extra = problems_of(caught.value, known=Roof.model_fields).split("; ")
    assert place.startswith("tiles.1: Input should be a valid integer")
    assert extra == "colour: Extra inputs are not permitted, known are pitch, tiles"
    assert problems_of(caught.value).endswith("colour: Extra inputs are not permitted")


def test_a_row_of_which_all_is_wrong_is_not_called_empty() -> None:
    with pytest.raises(ValidationError) as caught:
        Town.model_validate({"roofs": [{"pitch": "steep"}], "streets": []})
    roof, streets = problems_of(caught.value).split("; ")
    assert roof.startswith("roofs.0.pitch: Input should be a valid integer")
    assert streets.startswith("streets: Tuple should have at least 1 item")


def test_what_is_wrong_as_a_whole_is_said_as_it_was_raised() -> None:
    with pytest.raises(ValidationError) as caught:
        Roof.model_validate({"pitch": 99})
    assert problems_of(caught.value) == "it would fall over; give 90 at most"
    assert problems_of(caught.value, whole="roof") == "roof: it would fall over; give 90 at most"


def test_a_value_in_place_of_a_list_is_said_in_words_of_the_file() -> None:
    with pytest.raises(ValidationError) as caught:
        Town.model_validate({"roofs": [{"pitch": 1}], "streets": "High Street"})
    assert problems_of(caught.value) == "streets: should be a list, [...], got 'High Street'"


def test_a_value_in_place_of_a_table_is_said_in_words_of_the_file() -> None:
    class Scene(BaseModel):
        files: list[str]

    class Region(BaseModel):
        scenes: list[Scene]
        engine: Scene

    with pytest.raises(ValidationError) as caught:
        Region.model_validate({"scenes": ["a.tif"], "engine": "cpu"})
    assert problems_of(caught.value) == (
        "scenes.0: should be a table, [[scenes]] with keys below it, got 'a.tif'; "
        "engine: should be a table, [engine] with keys below it, got 'cpu'"
    )


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(b"\xef\xbb\xbfa = 1\n")
    assert read_toml(path, "card") == {"a": 1}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a = ", "is not TOML"),
        (b"\xff\xfe", "is not TOML"),
        (b"a = " + b"[" * 100_000, "nested too deeply"),
        (b"#" * (1 << 21), "larger than 1 MiB"),
    ],
)
def test_what_is_no_toml_is_said_in_the_family_that_was_asked_for(
    tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=f"card .*a.toml {said}|card .*{said}"):
        read_toml(path, "card", ModelError)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_toml(tmp_path / "none.toml", "recipe")
    with pytest.raises(ConfigError, match="Is a directory"):
        read_toml(tmp_path, "recipe")
