"""What is wrong with the values of a file, in the words of TOML: text, numbers, lists and tables.

A problem is found by Pydantic, which names its own types and which of several it tried. Walking the model
along the place of a problem tells which parts of it are keys of the file, and which keys the table takes.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

_SHOULD_BE = {
    "text, \"...\"": ("string_type", "path_type"),
    "a whole number": ("int_type", "int_parsing", "int_parsing_size", "int_from_float"),
    "a number": ("float_type", "float_parsing"),
    "a finite number": ("finite_number",),
    "true or false": ("bool_type", "bool_parsing"),
    "a list, [...]": ("tuple_type", "list_type"),
    "a table, {head} with keys below it": (
        "model_type", "model_attributes_type", "dataclass_type", "dict_type", "mapping_type",
    ),
    "more than {gt:,.10g}": ("greater_than",),
    "{ge:,.10g} or more": ("greater_than_equal",),
    "less than {lt:,.10g}": ("less_than",),
    "{le:,.10g} or less": ("less_than_equal",),
    "a multiple of {multiple_of:,.10g}": ("multiple_of",),
    "a list of {min_length} or more": ("too_short",),
    "a list of {max_length} or fewer": ("too_long",),
    "text of {min_length} or more characters": ("string_too_short",),
    "text of {max_length} or fewer characters": ("string_too_long",),
    "{expected}": ("literal_error",),
    "{expected_tags}": ("union_tag_invalid",),
}  # fmt: skip
"""What a value should be, by kinds of problems."""

_SHOULD = {kind: words for words, kinds in _SHOULD_BE.items() for kind in kinds}

_NO_KEY = ("extra_forbidden", "unexpected_keyword_argument")


@dataclass(frozen=True, slots=True)
class _Problem:
    place: tuple[str | int, ...]
    """Keys and numbers in lists, as the file has them."""
    tried: bool
    """Another kind of value would do there, too."""
    should: str
    """What the value should be; empty: that is not what is wrong."""
    said: str
    """What is wrong instead, or what the value is."""


def problems_of(error: ValidationError, model: Any, whole: str = "") -> str:
    """What is wrong with the values of a file: each key, and why.

    Args:
        error: of the values.
        model: that they were to be.
        whole: what is named where it is no key but all of them together; empty: nothing.
    """
    problems = [_problem(found, model) for found in error.errors()]
    merged: dict[tuple[tuple[str | int, ...], str], list[str]] = {}
    for one in problems:
        # A row that lacks what is wrong in it is not short, and a list of which one is wrong is no text.
        inner = any(
            other.place[: len(one.place)] == one.place and len(other.place) > len(one.place)
            for other in problems
        )
        if not (inner and one.tried):
            merged.setdefault((one.place, one.said), []).append(one.should)
    return "; ".join(_told(place, should, said, whole) for (place, said), should in merged.items())


def _told(place: Sequence[str | int], should: Sequence[str], said: str, whole: str) -> str:
    if any(should):
        said = f"should be {' or '.join(dict.fromkeys(should))}, got {said}"
    name = ".".join(map(str, place)) or whole
    return f"{name}: {said}" if name else said


def _problem(found: ErrorDetails, model: Any) -> _Problem:
    kind, about, value = found["type"], dict(found.get("ctx", {})), found["input"]
    place, keys, tried = _walk(model, found["loc"])
    if "discriminator" in about:  # which of several tables it is, a key of it says
        place = (*place, str(about["discriminator"]).strip("'"))
        value = about.get("tag", value)
    if kind in ("missing", "missing_argument", "union_tag_not_found"):
        return _Problem(place, tried, "", "is missing")
    if kind in _NO_KEY:
        return _Problem(place, tried, "", f"is no key here, known are {', '.join(keys)}")
    if kind not in _SHOULD:
        return _Problem(place, tried, "", found["msg"].removeprefix("Value error, "))  # as we raised it
    named = ".".join(str(part) for part in place if not isinstance(part, int))
    about["head"] = f"[[{named}]]" if place and isinstance(place[-1], int) else f"[{named}]"
    return _Problem(place, tried or kind == "too_short", _SHOULD[kind].format(**about), f"{value!r:.60}")


def _walk(model: Any, loc: Iterable[str | int]) -> tuple[tuple[str | int, ...], tuple[str, ...], bool]:
    """The place of a problem in the file, keys of the table there, whether one of several kinds was tried."""
    kinds, place, told, keys = _kinds(model), list[str | int](), False, tuple[str, ...]()
    for part in loc:
        if part == "[key]":  # of a table
            continue
        if len(kinds) > 1 and not told:  # which of several kinds was tried, and no key
            kinds, told = [kind for kind in kinds if _is_called(kind, part)] or kinds, True
            continue
        keys = tuple(dict.fromkeys(key for kind in kinds for key in _fields(kind)))
        place.append(part)
        kinds, told = [inner for kind in kinds for inner in _below(kind, part)], False
    return tuple(place), keys, told


def _kinds(kind: Any) -> list[Any]:
    """The kinds of value that a type stands for, but for nothing."""
    if get_origin(kind) is Annotated:
        return _kinds(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return [inner for part in get_args(kind) if part is not type(None) for inner in _kinds(part)]
    return [kind]


def _is_called(kind: Any, tag: str | int) -> bool:
    """Whether a table is that which a value of its keys says."""
    fields = kind.model_fields.values() if _is_model(kind) else ()
    return any(tag == field.default for field in fields)


def _fields(kind: Any) -> Mapping[str, Any]:
    """Keys of a table with their types; none where any may be."""
    if _is_model(kind):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    return get_type_hints(kind) if is_dataclass(kind) else {}


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _below(kind: Any, part: str | int) -> list[Any]:
    """What stands at a key of a table, or a number in a list."""
    if part in (fields := _fields(kind)):
        return _kinds(fields[str(part)])
    inner = get_args(kind)
    if not inner or _is_model(kind):
        return []
    if isinstance(part, str):
        return _kinds(inner[-1])  # of any key
    return _kinds(inner[part] if part < len(inner) and inner[-1] is not ... else inner[0])
