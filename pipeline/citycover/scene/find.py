"""What is given as a scene, as the raster files that it means: folders, patterns, tile indexes, STAC.

    folder           a Zarr store, a product of Sentinel-2 or Landsat, or its raster files in the order of
                     their names, or its Zarr stores
    metadata         MTD_MSIL2A.xml, *_MTL.txt: the product in whose folder they lie
    archive          the same in .zip and .tar; of a folder without rasters, the archives in it
    scene file       .toml: see `stated.py`
    pattern          `tiles/**/*.tif`, where no file is called so; `s3://bucket/tiles/*.tif`
    tile index       a vector file with a column `location`, as `gdaltindex` writes it
    STAC             an item, an item collection, or a collection or catalog with links to items: the assets
                     that hold data, with the names of bands and the date that the item gives them

Anything else is the name of a raster. What an index or an item names is checked as the sources of a VRT are:
by `trust.py`, before it is opened.
"""

from __future__ import annotations

import glob
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from citycover.errors import SceneError
from citycover.files.folders import is_zarr
from citycover.files.local import local_name
from citycover.files.remote import is_remote, matching
from citycover.geometry.vector import read_features
from citycover.scene.given import Given
from citycover.scene.masking import known_mask
from citycover.scene.measure import said_by_stac
from citycover.scene.members import is_archive, members_of
from citycover.scene.products import holds_product, product_of, product_rasters, tells_of_product
from citycover.scene.said import measured_bands, nodata_said, said_of
from citycover.scene.stated import stated_rasters
from citycover.scene.trust import Trust

_RASTERS = frozenset({".tif", ".tiff", ".jp2", ".img", ".png", ".jpg"})

_INDEXES = frozenset({".shp", ".gpkg", ".fgb", ".geojsonl", ".parquet"})

_READ_HERE = re.compile(
    r"\w+://.*(?<!\.zarr)\.(json|geojson|toml|zip|tar|tgz|tar\.gz|shp|gpkg|fgb|parquet)$", re.IGNORECASE
)
"""Addresses of what is read from a disk alone: what names files, and archives."""

_LARGEST = 512 << 20
"""Bytes of JSON."""

_DEEPEST = 8
"""Catalogs of catalogs."""

_NO_DATA_ROLES = frozenset({"thumbnail", "overview", "visual", "metadata", "tilejson", "saturation", "cloud"})

_ARCHIVED = re.compile(r"/vsi(zip|tar|gzip)/(?=/)")

_NO_RASTER = re.compile(r"\.(json|geojson|xml|html?|txt|csv|pdf|zip)$", re.IGNORECASE)


def rasters_of(paths: Sequence[str | Path], trust: Trust) -> list[Given]:
    """The raster files that are meant, in order.

    Raises:
        SceneError: an index cannot be read, means nothing, or names what it has no right to.
    """
    return [given for path in paths for given in _meant(path, trust)]


def _meant(path: str | Path, trust: Trust) -> Iterator[Given]:
    path = local_name(path) if isinstance(path, str) else path
    where = Path(path)
    suffix = where.suffix.lower()
    if where.is_dir():
        yield from _in_folder(where)
    elif where.is_file() and tells_of_product(where.name):
        yield from product_of(where)
    elif where.is_file() and is_archive(where):
        yield from _in_archive(where)
    elif where.is_file() and suffix == ".toml":
        yield from stated_rasters(where, trust)
    elif isinstance(path, str) and _READ_HERE.match(path):
        raise SceneError(
            f"{path} lies across the network, and is no raster: archives, indexes and STAC are read on this "
            f"machine; fetch it first (curl -O), and give --allow-remote if what it names lies there"
        )
    elif not where.exists() and isinstance(path, str) and _is_pattern(path):
        yield from map(Given, _matching(path))
    elif where.is_file() and suffix in {".json", ".geojson"}:
        yield from _of_json(where, trust)
    elif where.is_file() and suffix in _INDEXES:
        yield from _of_index(where, trust)
    else:
        yield Given(path)


def _in_folder(folder: Path) -> Iterator[Given]:
    """A product, else raster files, else products and archives in it; for GDAL itself where it has none."""
    if is_zarr(folder):
        yield Given(folder)
        return
    rasters = rasters_in(folder)
    if holds_product(folder):
        yield from product_rasters(members_of(folder))
    elif rasters:
        yield from map(Given, rasters)
    else:
        found = product_rasters(members_of(folder)) if holds_product(folder, "*/") else []
        stores = [inner for inner in sorted(folder.iterdir()) if is_zarr(inner)]
        archives = [file for file in sorted(folder.iterdir()) if file.is_file() and is_archive(file)]
        yield from found
        yield from map(Given, stores)
        for archive in archives:
            yield from _in_archive(archive)
        if not (found or stores or archives):
            yield Given(folder)


def _in_archive(path: Path) -> Iterator[Given]:
    """The Zarr store that it is; products, else raster files that lie in the fewest folders, else stores."""
    if is_zarr(path):
        yield Given(path)
        return
    members = members_of(path)
    if products := product_rasters(members):
        yield from products
        return
    rasters = [name for name in members.names if Path(name).suffix.lower() in _RASTERS]
    if not rasters:
        stores = [str(path / name) for name in sorted({name.partition("/")[0] for name in members.names})]
        if not (found := [Given(store) for store in stores if is_zarr(store)]):
            raise SceneError(
                f"{path} holds no raster file, no Zarr store and no known product; unpack it, "
                "and name its files"
            )
        yield from found
        return
    level = min(name.count("/") for name in rasters)
    yield from (Given(members.path(name)) for name in rasters if name.count("/") == level)


def rasters_in(folder: Path) -> Sequence[Path]:
    """The raster files that are meant where a folder is given; VRT files only where it has no others."""
    files = [f for f in sorted(folder.iterdir()) if f.is_file() and not f.name.startswith(".")]
    rasters = [f for f in files if f.suffix.lower() in _RASTERS]
    return rasters or [f for f in files if f.suffix.lower() == ".vrt"]


def _is_pattern(path: str) -> bool:
    """An address has `?` and `[]` of its own."""
    return "*" in path and path.startswith("s3://") if is_remote(path) else glob.has_magic(path)


def _matching(pattern: str) -> list[str]:
    if is_remote(pattern):
        found = matching(pattern)
    else:
        found = sorted(f for f in glob.glob(pattern, recursive=True) if Path(f).is_file() or is_zarr(f))  # noqa: PTH207 - text stays
    if not found:
        raise SceneError(f"no file matches {pattern}; check the pattern (** goes into folders)")
    return found


def _of_json(path: Path, trust: Trust) -> Iterator[Given]:
    content = _read_json(path)
    if isinstance(content, Mapping) and (content.get("stac_version") or _is_item_collection(content)):
        yield from _of_stac(content, path, trust)
    elif isinstance(content, Mapping) and content.get("type") == "FeatureCollection":
        yield from _of_index(path, trust)
    else:
        yield Given(path)  # GDAL says what it is not


def _read_json(path: Path) -> Any:
    if path.stat().st_size > _LARGEST:
        raise SceneError(f"{path} is more than {_LARGEST >> 20} MiB of JSON; split it into several")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise SceneError(f"{path} is no JSON ({error}); check that the file is whole") from None


def _of_index(path: Path, trust: Trust) -> Iterator[Given]:
    """The `location` of each feature, counted from the folder of the index where it is relative."""
    places = read_features(path, "tile index", None).columns.get("location")
    if not places:
        raise SceneError(
            f"{path} is a vector file without a column 'location'; a scene is raster files or an index of "
            f"them; make one: gdaltindex {path} *.tif"
        )
    for number, place in enumerate(places, start=1):
        if not isinstance(place, str) or not place:
            raise SceneError(
                f"{path}: the location of feature {number} of {len(places)} is {place!r}, no name of a file; "
                f"name one, or leave the feature out"
            )
        yield _named(place, path, trust)


def _named(href: str, by: Path, trust: Trust) -> Given:
    """A file that another one names.

    Raises:
        SceneError: it has no right to.
    """
    href = local_name(href)
    absolute = href if is_remote(href) or href.startswith("/") else os.path.join(by.absolute().parent, href)  # noqa: PTH118 - `/vsi` names are no paths
    archive = _ARCHIVED.match(absolute)  # whose name may begin with a slash of its own
    start = archive.end() if archive else 0
    normal = absolute if is_remote(absolute) else absolute[:start] + os.path.normpath(absolute[start:])
    trust.check(normal, str(by.absolute()))
    return Given(normal, str(by.absolute()))


def _is_item_collection(content: Mapping[str, Any]) -> bool:
    features = content.get("features")
    return isinstance(features, list) and bool(features) and all("assets" in f for f in features)


def _of_stac(content: Mapping[str, Any], path: Path, trust: Trust, depth: int = 0) -> Iterator[Given]:
    try:
        if content.get("type") == "FeatureCollection":
            for item in content["features"]:
                yield from _of_item(item, path, trust)
        elif content.get("type") == "Feature":
            yield from _of_item(content, path, trust)
        else:
            yield from _of_links(content, path, trust, depth)
    except LookupError as error:
        raise SceneError(f"{path} is STAC that lacks {error}; check it with stac-validator") from None
    except (TypeError, AttributeError):
        raise SceneError(
            f"{path} is STAC in which something (assets, href, bands, links) is of another kind than it "
            f"has to be; check it with stac-validator"
        ) from None


def _of_links(content: Mapping[str, Any], path: Path, trust: Trust, depth: int) -> Iterator[Given]:
    """Items of a collection or catalog."""
    links = [link["href"] for link in content.get("links", ()) if link.get("rel") in {"item", "child"}]
    if not links or depth == _DEEPEST:
        why = "is more than 8 catalogs deep" if links else "links to no item"
        raise SceneError(f"{path} is a STAC {content.get('type', 'catalog')} that {why}; name its items")
    for href in links:
        inner = _named(href, path, trust)
        if is_remote(str(inner.path)):
            raise SceneError(
                f"{path} links to {href}, which lies across the network; download the item first"
            )
        where = Path(inner.path)
        if not where.is_file():
            raise SceneError(
                f"{path} links to {where}, which does not exist; bring it back, or name its items"
            )
        yield from _of_stac(_read_json(where), where, trust, depth + 1)


def _of_item(item: Mapping[str, Any], path: Path, trust: Trust) -> Iterator[Given]:
    """Assets of an item that hold data, and known masks; of several copies (COG and JPEG 2000) the first.

    Where some assets tell their bands, those that tell none are other data than imagery (aerosol, angles).
    """
    properties = item.get("properties") or {}
    time = properties.get("datetime") or properties.get("start_datetime")
    assets = {key: asset for key, asset in item["assets"].items() if _holds_data(key, asset)}
    if any(map(_names_of, assets.values())):
        assets = {key: asset for key, asset in assets.items() if _names_of(asset) or _mask_of(asset)}
    if not assets:
        raise SceneError(
            f"STAC item {item.get('id')} in {path} has no asset with the role data or with bands; it has "
            f"{', '.join(item['assets']) or 'none at all'}; name the files themselves"
        )
    kept: dict[tuple[tuple[str, str], ...] | str, Mapping[str, Any]] = {}
    for key, asset in assets.items():
        kept.setdefault(_names_of(asset) or _mask_of(asset) or key, asset)
    common = Counter(band[1] for bands in kept if isinstance(bands, tuple) for band in bands)
    for bands, asset in kept.items():
        named = bands if isinstance(bands, tuple) else ()
        # Several bands share a common name (three red edges): then their own names tell them apart.
        titles = [shared if shared and common[shared] == 1 else name or shared for name, shared in named]
        yield replace(
            _named(asset["href"], path, trust),
            titles=tuple(titles) if all(titles) else (),
            time=time,
            measures=tuple(map(said_by_stac, measured_bands(asset))),
            nodata=nodata_said(asset),
            said=said_of(asset, properties),
        )


def _mask_of(asset: Mapping[str, Any]) -> str | None:
    return known_mask(asset["href"].rpartition("/")[2])


def _holds_data(key: str, asset: Mapping[str, Any]) -> bool:
    if _mask_of(asset) and not _NO_RASTER.search(asset["href"]):
        return True  # whatever its roles: there are as many as things it hides
    roles = set(asset.get("roles") or ())
    if roles & _NO_DATA_ROLES or key in _NO_DATA_ROLES or _NO_RASTER.search(asset["href"]):
        return False
    return bool(roles & {"data", "reflectance"} or _bands_of(asset))


def _bands_of(asset: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return asset.get("eo:bands") or asset.get("bands") or ()


def _names_of(asset: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Name and common name of each band, empty where there is none; nothing where no band has any."""
    names = tuple(
        (str(band.get("name") or ""), str(band.get("eo:common_name") or band.get("common_name") or ""))
        for band in _bands_of(asset)
    )
    return names if any(map(any, names)) else ()
