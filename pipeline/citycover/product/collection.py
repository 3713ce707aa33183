"""`collection.json`: the products below a folder as a STAC 1.1 collection.

Items are linked, never changed: a product stays as it was published. What all of them share, the kinds of
their assets and the classes, is said once, under `item_assets`.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pystac
import shapely

from citycover.errors import ConfigError
from citycover.files.output import write_output
from citycover.files.plain import parse_json, to_json
from citycover.files.remote import Place, RemotePath, place_of
from citycover.geometry.footprint import bbox_of
from citycover.plan.layers import CLASSES
from citycover.product.folder import holds_product, listed_files
from citycover.product.names import SIGN
from citycover.product.product import Product
from citycover.version import __version__

logger = logging.getLogger(__name__)

COLLECTION = "collection.json"

_MADE = "citycover:version"
"""Marks a collection as ours, to be written anew."""

_USED = ("classification", "projection")
"""Extensions whose fields the collection itself has."""

_OF_ONE = ("count", "percentage")
"""What a class says of one map."""


@dataclass(frozen=True, slots=True)
class Collected:
    """A collection that was written."""

    path: Place
    products: tuple[Place, ...]
    """Folders."""


def collect(folder: str | Place, *, title: str | None = None, licence: str = "other") -> Collected:
    """Write `collection.json` into a folder, for all finished products below it.

    Args:
        folder: where products lie, each in a folder of its own, at any depth; or `s3://bucket/prefix`.
        title: of the collection; None: the name of the folder.
        licence: of the maps, an SPDX identifier or `other`.

    Raises:
        ConfigError: there is no product, one is not whole, or the file there is somebody else's.
        MachineError: the file cannot be written.
    """
    folder = place_of(folder)
    path = folder / COLLECTION
    if path.exists() and not _is_ours(path):
        raise ConfigError(f"{path} is not of citycover, so it is not replaced; move it away")
    products: tuple[Place, ...] = tuple(sorted(_products_below(folder), key=str))
    if not products:
        raise ConfigError(
            f"{folder} holds no finished product in a folder of its own; give the folder above those that "
            "`citycover map` wrote"
        )
    for product in products:
        Product.read(product)  # raises where one is not whole
    items = [_read_item(product / SIGN) for product in products]
    _warn_of_twins(items, products)
    name = folder.resolve().name if isinstance(folder, Path) else folder.name
    collection = make_collection(items, name, title, licence)
    for product in products:
        href = f"./{_within(product, folder)}/{SIGN}"
        collection.add_link(pystac.Link(pystac.RelType.ITEM, href, media_type=pystac.MediaType.GEOJSON))
    text = to_json(collection.to_dict(include_self_link=False))
    if isinstance(path, RemotePath):
        path.write(text.encode())
    else:
        write_output(path, text)
    return Collected(path, products)


def is_of_today(folder: Path) -> bool:
    """Whether `collection.json` links what lies in folders right below, and was written after all of that."""
    there = {f"./{sign.parent.name}/{SIGN}": sign.stat() for sign in folder.glob(f"[!.]*/{SIGN}")}
    path = folder / COLLECTION
    try:
        hrefs = {link["href"] for link in parse_json(path.read_text(encoding="utf-8"))["links"]}
        written = path.stat().st_mtime_ns
    except (OSError, ValueError, KeyError, TypeError):
        return not there
    linked = {href for href in hrefs if href.endswith(f"/{SIGN}") and href.count("/") == 2}
    return linked == there.keys() and all(sign.st_mtime_ns <= written for sign in there.values())


def make_collection(
    items: Sequence[pystac.Item], name: str, title: str | None, licence: str
) -> pystac.Collection:
    """The collection in memory, without its links."""
    software = sorted({_model(item) for item in items})
    collection = pystac.Collection(
        id=name,
        title=title or name,
        description=f"Land cover of {len(items)} scenes by {', '.join(software)}.",
        license=licence,
        extent=_extent(items),
        summaries=pystac.Summaries(
            {
                "gsd": sorted({item.properties["gsd"] for item in items}),
                "proj:code": sorted({code for item in items if (code := item.properties.get("proj:code"))}),
                "citycover:model": software,
            }
        ),
        extra_fields={"item_assets": _shared_assets(items), _MADE: __version__},
    )
    known = {uri for item in items for uri in item.stac_extensions}
    collection.stac_extensions = sorted(uri for uri in known if any(f"/{name}/" in uri for name in _USED))
    return collection


def _within(product: Place, folder: Place) -> str:
    if isinstance(product, Path) and isinstance(folder, Path):
        return product.relative_to(folder).as_posix()
    return str(product).removeprefix(f"{folder}/")


def _read_item(sign: Place) -> pystac.Item:
    """The item of a product."""
    return pystac.Item.from_dict(parse_json(sign.read_text(encoding="utf-8")))


def _products_below(folder: Place) -> Iterator[Place]:
    """Folders of finished products; what lies inside of one is its own affair."""
    if isinstance(folder, RemotePath):
        signs = [folder / key for key in folder.below() if key.endswith(f"/{SIGN}")]
        yield from (sign.parent for sign in signs if listed_files(sign) is not None)
        return
    for place, inner, names in os.walk(folder):
        if holds_product(Path(place)):
            if place != str(folder):
                inner.clear()
                yield Path(place)
        elif {"run.json", CLASSES.file} <= {*names}:
            logger.warning(
                "%s is left out: it holds a map, and no %s that is whole; copy it again, or map again",
                place, SIGN,
            )  # fmt: skip
        inner[:] = [name for name in inner if not name.startswith(".")]


def _is_ours(path: Place) -> bool:
    try:
        return _MADE in parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def _warn_of_twins(items: Sequence[pystac.Item], products: Sequence[Place]) -> None:
    """Items are known by their ids; two maps of files that are called alike have one."""
    for name, count in Counter(item.id for item in items).items():
        if count > 1:
            twins = [str(p) for item, p in zip(items, products, strict=True) if item.id == name]
            logger.warning(
                "%s have one id, %s: catalogues that go by it will show one of them; name the images apart",
                " and ".join(twins),
                name,
            )


def _model(item: pystac.Item) -> str:
    return str(item.properties["citycover:model"]["name"])


def _extent(items: Sequence[pystac.Item]) -> pystac.Extent:
    """Box and time of all items together; the whole Earth where none says its place.

    Where one crosses 180 degrees, so does the box: west > east, as in the items (RFC 7946, 5.2).
    """
    boxes = [part for item in items if item.bbox is not None for part in _boxes(*item.bbox)]
    whole = [*bbox_of(shapely.MultiPolygon(boxes))] if boxes else [-180.0, -90.0, 180.0, 90.0]
    times = [item.datetime for item in items if item.datetime is not None]
    return pystac.Extent(pystac.SpatialExtent([whole]), pystac.TemporalExtent([[min(times), max(times)]]))


def _boxes(west: float, south: float, east: float, north: float) -> list[shapely.Polygon]:
    """A box in degrees; one that crosses 180 degrees, where west > east, in two."""
    if west <= east:
        return [shapely.box(west, south, east, north)]
    return [shapely.box(west, south, 180.0, north), shapely.box(-180.0, south, east, north)]


def _shared_assets(items: Sequence[pystac.Item]) -> dict[str, Any]:
    """What is the same of an asset in every item that has it."""
    found: dict[str, list[dict[str, Any]]] = {}
    for item in items:
        for key, asset in item.assets.items():
            found.setdefault(key, []).append(_said(asset))
    return {
        key: {name: value for name, value in said[0].items() if all(s.get(name) == value for s in said)}
        for key, said in found.items()
    }


def _said(asset: pystac.Asset) -> dict[str, Any]:
    """What is no matter of one map."""
    classes = asset.extra_fields.get("classification:classes", ())
    known = {
        "title": asset.title,
        "type": asset.media_type,
        "roles": asset.roles,
        "classification:classes": [{n: v for n, v in c.items() if n not in _OF_ONE} for c in classes],
    }
    return {name: value for name, value in known.items() if value}
