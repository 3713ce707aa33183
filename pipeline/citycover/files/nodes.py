"""Groups and arrays in Zarr stores: opened, listed, and what lies around one of them.

An array is called as its folder (`a.zarr/r10m/red`), in Zarr 2 or 3, in a folder, a zip file or a bucket.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError, RasterioIOError

from citycover.files.chunks import Axes, as_raster_error
from citycover.files.folders import at_date, date_of, folder_of, groups_above, is_zarr, undated, zarr_format
from citycover.files.remote import RemotePath
from citycover.files.zipped import ZippedPath

_DEEPEST = 8
"""Groups in groups: links may lead in a circle."""

_MOST_DATES = 100
"""Dates of an array that are meant where none is named."""

_LONGEST = 1 << 24
"""Coordinates that are read of an axis."""


def open_node(path: str) -> Any:
    """A group or an array, by its path.

    Raises:
        RasterioError: it cannot be opened.
    """
    import zarr
    from zarr.storage import ObjectStore

    place, inside = folder_of(path), ""
    with looking():
        store: Any = place
        if isinstance(place, RemotePath):
            store = ObjectStore(place.store(), read_only=True)
        elif isinstance(place, ZippedPath):
            store, inside = place.store(), place.key
        return zarr.open(store, mode="r", path=inside, zarr_format=zarr_format(place))


@contextmanager
def looking() -> Iterator[None]:
    """Metadata are looked at: what zarr-python thinks of types that have no specification yet is not said."""
    with warnings.catch_warnings(), as_raster_error():
        warnings.simplefilter("ignore")
        yield


def is_group(node: Any) -> bool:
    """Whether it is a group; else it is an array."""
    return hasattr(node, "members")


def name_of(path: str) -> str:
    """What an array or a store is called."""
    return Path(undated(path)).name.removesuffix(".zip").removesuffix(".zarr")


def dimension_names(array: Any) -> tuple[str | None, ...]:
    """Names of the dimensions of an array, as Zarr 3 or xarray keeps them; None each where there are none."""
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    return tuple(names) if names and len(names) == array.ndim else (None,) * array.ndim


def arrays_in(path: str) -> list[tuple[str, str]]:
    """Paths of arrays of two dimensions or more in a store or group, in order of their names.

    Those that cannot be opened are among them: who opens them says why. An array of several dates is there
    once for each, as `at_date` has it, unless the path means one of them.

    Returns:
        Each with the name of what it shows. Levels of a pyramid that are arrays show the same; those that are
        groups hold arrays of the same names.

    Raises:
        RasterioError: the store cannot be opened.
    """
    plain = undated(path)
    node = open_node(plain)
    with looking():
        found = list(_arrays_in(node, plain, 0)) if is_group(node) else [(plain, name_of(plain))]
        return [(one, shown) for array, shown in found for one in _dates_of(array, date_of(path))]


def _dates_of(path: str, date: int | None) -> list[str]:
    """An array as it is at a date, or at each of its dates; as it is where it has one or too many."""
    try:
        array = open_node(path)
        time = Axes.of(dimension_names(array), array.shape, None).time
    except (RasterioError, ValueError):
        return [path]  # who opens it says why
    if time is None or at_date(path, 0) == path:
        return [path]
    count = array.shape[time]
    dates = range(count if count <= _MOST_DATES else 0) if date is None else [date]
    return [at_date(path, number) for number in dates] or [path]


def _arrays_in(group: Any, path: str, depth: int) -> Iterator[tuple[str, str]]:
    levels = _levels(group.attrs.get("multiscales"))
    for inner, node in _members(group, path) if depth < _DEEPEST else ():
        if node is not None and is_group(node):
            yield from _arrays_in(node, inner, depth + 1)
        elif node is None or node.ndim > 1:
            yield inner, name_of(path) if Path(inner).name in levels else name_of(inner)


def _members(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Paths of groups and arrays in a group, by name, and what they are; None: they cannot be opened.

    Raises:
        RasterioError: they cannot be listed, and the group does not name them.
    """
    place = folder_of(path)
    if isinstance(place, RemotePath) and not place.listed:
        if group.metadata.consolidated_metadata is None:
            raise RasterioIOError(
                f"its server does not list what it holds, and its metadata are not consolidated; name an "
                f"array in it, as {path}/red, or have them written: zarr.consolidate_metadata"
            )
        yield from (
            (str(place / name), node) for name, node in sorted(group.members(), key=lambda one: one[0])
        )
        return
    if isinstance(place, Path):
        names = [str(inner) for inner in sorted(place.iterdir()) if is_zarr(inner)]
    else:
        names = [str(inner) for name in place.folders() if is_zarr(inner := place / name)]
    for name in names:
        try:
            yield name, open_node(name)
        except RasterioError:
            yield name, None


def _levels(multiscales: Any) -> dict[str, Mapping[str, Any]]:
    """What is said of levels of a pyramid in a group, by name; by the conventions of GeoZarr and of OME."""
    if isinstance(multiscales, Mapping):
        entries = multiscales.get("layout") or ()
    else:
        entries = [entry for scale in multiscales or () for entry in scale.get("datasets", ())]
    return {
        str(entry.get("asset", entry.get("path"))): entry for entry in entries if isinstance(entry, Mapping)
    }


@dataclass
class Around:
    """What lies around an array in its store: groups, up to the root, and the arrays in them."""

    path: str
    groups: list[Any] = field(default_factory=list)
    """The nearest first."""

    def __post_init__(self) -> None:
        self.groups += [open_node(str(above)) for above in groups_above(self.path)]

    @property
    def attributes(self) -> list[dict[str, Any]]:
        """Of the groups, and before each what it says of the level that the array is, or lies in.

        A place is that of the arrays of a group; of arrays in groups below only where its shape tells which.
        """
        said: list[dict[str, Any]] = []
        inner = folder_of(self.path)
        for depth, group in enumerate(self.groups):
            attributes = dict(group.attrs)
            if level := _levels(attributes.get("multiscales")).get(inner.name):
                said.append(dict(level))
            for key in ("spatial", "proj") if depth else ():
                if f"{key}:shape" not in attributes:
                    attributes.pop(f"{key}:transform", None)
            said.append(attributes)
            inner = inner.parent
        return said

    def attributes_of(self, name: str) -> dict[str, Any]:
        """Those of the nearest array of a name; none where there is none."""
        found = (group.get(name) for group in self.groups)
        return next((dict(array.attrs) for array in found if array is not None), {})

    def moment(self, name: str | None, date: int) -> tuple[dict[str, Any], NDArray[Any] | None]:
        """Attributes of a coordinate of times, and the number at a date; (empty, None): there is none."""
        array = self.groups[0].get(name) if name and self.groups else None
        if array is None or is_group(array) or array.ndim > 1 or not date < array.size <= _LONGEST:
            return {}, None
        return dict(array.attrs), np.asarray(array[...]).reshape(-1)[date]

    def axis(self, name: str | None, length: int) -> NDArray[Any] | None:
        """Coordinates along a dimension of the array; None: there are none."""
        array = self.groups[0].get(name) if name and self.groups else None
        if array is None or is_group(array) or tuple(array.shape) != (length,) or length > _LONGEST:
            return None
        return np.asarray(array[...])
