"""`item.json`: the product as a STAC 1.1 item, so that catalogues and people know what lies here.

Extensions: projection, raster, classification, file, processing. The model is linked the way the Machine
Learning Model extension asks derived products to: a `derived_from` link with `mlm:name`, and the asset's
`processing:expression` of format `stac-mlm`. The extension itself is not declared, since its schema is for
models. Source: STAC 1.1.0 and the extensions' documents.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pystac
import shapely
from odc.geo.geobox import GeoBox
from pystac.extensions.classification import Classification, ClassificationExtension
from pystac.extensions.file import FileExtension
from pystac.extensions.projection import ProjectionExtension
from pystac.extensions.raster import DataType, RasterBand, RasterExtension
from pystac.extensions.raster import Statistics as RasterStatistics

from citycover.classes.legend import Legend
from citycover.evidence.catalogue import Credit
from citycover.files.atomic import write_atomic
from citycover.files.identity import sha256_of
from citycover.files.plain import parse_json
from citycover.geometry.crs import to_degrees
from citycover.geometry.footprint import bbox_of, footprint
from citycover.geometry.grid import authority_code, crs_of
from citycover.product.cog import CogInfo
from citycover.product.names import SIGN
from citycover.product.record import RunRecord
from citycover.product.tiff import BandInfo
from citycover.store.statistics import Statistics
from citycover.version import __version__

PROCESSING_SCHEMA = "https://stac-extensions.github.io/processing/v1.1.0/schema.json"

_MEDIA = {
    ".tif": pystac.MediaType.COG,
    ".png": pystac.MediaType.PNG,
    ".json": pystac.MediaType.JSON,
    ".geojson": pystac.MediaType.GEOJSON,
    ".xml": pystac.MediaType.XML,
    ".html": pystac.MediaType.HTML,
    ".zarr": "application/vnd.zarr; version=3",
}

_MULTIHASH = "1220"
"""Before a digest: 0x12 says SHA-256, 0x20 says 32 bytes."""

_ROLES = {".tif": ["data"], ".zarr": ["data"], ".png": ["overview"], ".html": ["overview"]}


@dataclass(frozen=True, slots=True)
class ProductFile:
    """One file of the product."""

    name: str
    """Name in the product folder."""
    title: str = ""
    size: int | None = None
    """Bytes; None for a folder."""
    sha256: str | None = None
    """Hexadecimal; None for a folder."""
    bands: tuple[BandInfo, ...] = ()
    """Of rasters."""
    statistics: tuple[Statistics, ...] = ()
    """Of each band."""


@dataclass(frozen=True, slots=True)
class ModelSource:
    """The model behind the product."""

    name: str
    version: str
    href: str
    """Where its file is, or another URI that names it."""
    sha256: str
    """Of the model file."""
    kind: str = "trained model"
    """What it is: a trained model, built-in colour rules, random weights."""


@dataclass(frozen=True, slots=True)
class ItemContent:
    """Everything that the item says."""

    id: str
    grid: GeoBox
    gsd: float
    """Metres on the ground."""
    created: datetime
    """When the run ended; aware of its time zone."""
    scene_time: str | None
    """When the imagery was taken, ISO 8601; None: not known, and `created` stands in for it."""
    inputs: tuple[str, ...]
    """Paths or URLs of the imagery."""
    model: ModelSource
    files: tuple[ProductFile, ...]
    scene_start: str | None = None
    """When the first of it was taken, where that was not all at once."""
    software: Mapping[str, str] = field(default_factory=dict)
    """Version by name; `citycover` must be among them: it marks a folder as ours."""
    labels: tuple[str, ...] = ()
    """Paths of labels that were evidence beside the network."""
    credits: tuple[Credit, ...] = ()
    """Of labels that were asked for by name."""
    evidence: str = "extrapolating"
    """What the map rests on: `with labels`, or `extrapolating`."""
    lineage: str = ""
    """One sentence on how the product was made."""

    @classmethod
    def of(
        cls,
        record: RunRecord,
        *,
        name: str,
        grid: GeoBox,
        gsd: float,
        inputs: tuple[str, ...],
        model: str,
        files: tuple[ProductFile, ...],
        lineage: str,
    ) -> ItemContent:
        """What the item of a product says whose record is known.

        Args:
            record: of the run.
            name: `id` of the item.
            grid: of the map.
            gsd: metres.
            inputs: imagery.
            model: where its file is, or another URI that names it.
            files: all.
            lineage: one sentence.
        """
        given, labels = record.given, record.labels
        return cls(
            id=name,
            grid=grid,
            gsd=gsd,
            created=datetime.now(UTC),
            scene_time=given.time,
            scene_start=given.start,
            inputs=inputs,
            model=ModelSource(
                given.model.name, given.model.version, model, given.model.sha256, record.standing
            ),
            files=files,
            software={**given.versions, "citycover": __version__},
            labels=tuple(file.path for file in labels.files) if labels else (),
            credits=labels.credits if labels else (),
            evidence=record.evidence,
            lineage=lineage,
        )


def describe_file(path: Path, title: str = "") -> ProductFile:
    """Size and checksum of a file that is no raster of ours."""
    if path.is_dir():
        return ProductFile(path.name, title)
    return ProductFile(path.name, title, path.stat().st_size, sha256_of(path))


def describe_cog(path: Path, bands: Sequence[BandInfo], info: CogInfo, title: str) -> ProductFile:
    """The same for a file that `write_cog` made, whose checksum is known already."""
    return ProductFile(path.name, title, info.size, info.sha256, tuple(bands), info.statistics)


def write_item(path: Path, content: ItemContent) -> None:
    """Write the item, wholly or not at all."""
    write_atomic(path, json.dumps(make_item(content).to_dict(), indent=1, ensure_ascii=False))


def renew_file(folder: Path, name: str) -> None:
    """Note size and checksum of a file that was written anew in the item that lists it."""
    sign = folder / SIGN
    item = parse_json(sign.read_text(encoding="utf-8"))
    path = folder / name
    for asset in item["assets"].values():
        if str(asset["href"]).removeprefix("./") == name:
            asset |= {"file:checksum": _MULTIHASH + sha256_of(path), "file:size": path.stat().st_size}
    write_atomic(sign, json.dumps(item, indent=1, ensure_ascii=False))


def make_item(content: ItemContent) -> pystac.Item:
    """The item, in memory."""
    if "citycover" not in content.software:
        raise ValueError("software must name citycover and its version")
    taken = _parse_time(content.scene_time)
    geometry = footprint(content.grid)
    properties: dict[str, Any] = {
        "title": content.id,
        "gsd": content.gsd,
        "created": _iso(content.created),
        "processing:software": dict(content.software),
        "processing:level": "L4",
        "citycover:datetime_source": "processing" if taken is None else "acquisition",
        "citycover:evidence": content.evidence,
        "citycover:model": {
            "name": content.model.name,
            "version": content.model.version,
            "kind": content.model.kind,
        },
    }
    if taken is not None and (start := _parse_time(content.scene_start)) is not None:
        properties |= {"start_datetime": _iso(start), "end_datetime": _iso(taken)}
    if content.lineage:
        properties["processing:lineage"] = content.lineage
    item = pystac.Item(
        id=content.id,
        geometry=None if geometry is None else shapely.geometry.mapping(geometry),
        bbox=None if geometry is None else list(bbox_of(geometry)),
        datetime=taken or content.created,
        properties=properties,
    )
    item.stac_extensions.append(PROCESSING_SCHEMA)
    _add_projection(item, content.grid)
    for file in content.files:
        _add_asset(item, file, content)
    for href in content.inputs:
        item.add_link(pystac.Link(pystac.RelType.DERIVED_FROM, href, title="imagery"))
    for href in content.labels:
        item.add_link(pystac.Link(pystac.RelType.DERIVED_FROM, href, title="labels"))
    for credit in content.credits:
        item.add_link(_credit_link(credit))
    model = {"mlm:name": content.model.name, "citycover:sha256": content.model.sha256}
    item.add_link(
        pystac.Link(pystac.RelType.DERIVED_FROM, content.model.href, title="model", extra_fields=model)
    )
    return item


def _credit_link(credit: Credit) -> pystac.Link:
    """The product that labels are of, with what its licence asks for."""
    said = {"license": credit.licence, "attribution": credit.attribution}
    title = f"{credit.title} {credit.year}"
    return pystac.Link(pystac.RelType.DERIVED_FROM, credit.source, title=title, extra_fields=said)


def _add_projection(item: pystac.Item, grid: GeoBox) -> None:
    if grid.crs is None:
        return
    projection = ProjectionExtension.ext(item, add_if_missing=True)
    crs = crs_of(grid)
    code = authority_code(crs)
    projection.apply(
        code=code,
        wkt2=None if code else crs.to_wkt(),
        projjson=None if code else crs.to_json_dict(),
        bbox=list(grid.boundingbox.bbox),
        centroid=_centroid(grid),
        shape=[int(n) for n in grid.shape],
        transform=[float(value) for value in grid.transform[:6]],
    )


def _centroid(grid: GeoBox) -> dict[str, float] | None:
    transformer = to_degrees(crs_of(grid))
    if transformer is None:
        return None
    height, width = grid.shape
    lon, lat = transformer.transform(*(grid.transform * (width / 2, height / 2)))
    if not (math.isfinite(lon) and math.isfinite(lat)):
        return None
    return {"lat": min(max(lat, -90.0), 90.0), "lon": (lon + 180) % 360 - 180}


def _add_asset(item: pystac.Item, file: ProductFile, content: ItemContent) -> None:
    suffix = Path(file.name).suffix
    roles = _ROLES.get(suffix, ["metadata"])
    asset = pystac.Asset(
        f"./{file.name}", title=file.title or None, media_type=_MEDIA.get(suffix), roles=roles
    )
    key = file.name
    for ending in (".json", ".geojson", ".png", ".tif"):
        key = key.removesuffix(ending)
    item.add_asset(key, asset)
    if file.sha256 is not None:
        FileExtension.ext(asset, add_if_missing=True).apply(checksum=_MULTIHASH + file.sha256, size=file.size)
    if not file.bands:
        return
    seen = file.statistics or (None,) * len(file.bands)
    described = [_raster_band(band, one, content.gsd) for band, one in zip(file.bands, seen, strict=True)]
    RasterExtension.ext(asset, add_if_missing=True).apply(described)
    if len(file.bands) > 1:
        asset.extra_fields["bands"] = [{"name": band.description} for band in file.bands]
    asset.extra_fields["processing:expression"] = {"format": "stac-mlm", "expression": content.model.href}
    first = file.bands[0]
    if first.legend is not None:
        classes = _classes(first.legend, first.nodata, seen[0])
        ClassificationExtension.ext(asset, add_if_missing=True).apply(classes=classes)


def _raster_band(band: BandInfo, statistics: Statistics | None, gsd: float) -> RasterBand:
    seen = None
    if statistics is not None and statistics.pixels:
        percent = 100 * statistics.valid / statistics.pixels
        moments = (
            {}
            if band.legend is not None or not statistics.valid
            else {
                "minimum": statistics.minimum * band.scale,
                "maximum": statistics.maximum * band.scale,
                "mean": statistics.mean * band.scale,
                "stddev": statistics.stddev * band.scale,
            }
        )
        seen = RasterStatistics.create(**moments, valid_percent=percent)
    return RasterBand.create(
        nodata=band.nodata,
        data_type=DataType.UINT8,
        spatial_resolution=gsd,
        scale=None if band.scale == 1.0 else band.scale,
        statistics=seen,
    )


def _classes(legend: Legend, nodata: int, statistics: Statistics | None) -> list[Classification]:
    """Classes with their colours and shares, then nodata."""
    counts = statistics.counts if statistics is not None else {}
    valid = statistics.valid if statistics is not None else 0
    known = [
        Classification.create(
            value=c.id,
            name=_slug(c.name) or f"class-{c.id}",
            title=c.name,
            description=c.name,
            color_hint=c.color[1:].upper(),
            count=counts.get(c.id),
            percentage=round(100 * counts[c.id] / valid, 4) if valid and c.id in counts else None,
        )
        for c in legend.classes
    ]
    nothing = Classification.create(value=nodata, name="nodata", description="no valid input", nodata=True)
    return [*known, nothing]


def _slug(name: str) -> str:
    """The name in the letters that the classification extension allows."""
    return re.sub(r"[^0-9a-z]+", "-", name.lower()).strip("-")


def _parse_time(text: str | None) -> datetime | None:
    """A time with its zone; UTC where the text names none, None where it is no ISO 8601 time."""
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _iso(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
