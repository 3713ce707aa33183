"""Vector files, written batch by batch and in place only when whole: GeoParquet 1.1, or what GDAL writes."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from citycover.errors import ConfigError
from citycover.files.atomic import atomic_path
from citycover.geometry.grid import crs_of

_DRIVERS = {".gpkg": "GPKG", ".fgb": "FlatGeobuf", ".geojsonl": "GeoJSONSeq"}

ENDINGS = (".parquet", *_DRIVERS)

_LAYER = "areas"

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class FeatureBatch:
    """Polygons and what is said of each; all (n,)."""

    geometries: NDArray[np.object_]
    ids: NDArray[np.int64]
    classes: NDArray[np.int64]
    names: NDArray[np.object_]
    areas: NDArray[np.float64]
    """Square metres."""
    confidence: NDArray[np.float64]
    """0..1; NaN where there is none."""

    def columns(self, confident: bool) -> dict[str, NDArray[Any]]:
        """Attributes by name."""
        columns: dict[str, NDArray[Any]] = {
            "id": self.ids,
            "class": self.classes.astype(np.int32),
            "name": self.names,
            "area_m2": self.areas,
        }
        return columns | ({"confidence": self.confidence} if confident else {})


def check_ending(path: Path) -> None:
    """Raise ConfigError unless features can be written into such a file, here: before the work."""
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise ConfigError(f"polygons are written as {', '.join(ENDINGS)}; {path} ends in {ending!r}")
    try:
        if ending == ".parquet":
            import pyarrow.parquet  # noqa: F401
        else:
            import pyogrio  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"{ending} needs {error.name}, of the vector extra: pip install 'citycover[vector]'"
        ) from None


class FeatureFile:
    """A vector file that takes batches, and is there when the context ends well."""

    def __init__(self, path: Path, grid: GeoBox, confident: bool) -> None:
        self._path, self._grid, self._confident = path, grid, confident
        self._stack = ExitStack()
        self._sink: _Parquet | _Ogr

    def __enter__(self) -> FeatureFile:
        temporary = self._stack.enter_context(atomic_path(self._path))
        if self._path.suffix.lower() == ".parquet":
            self._sink = _Parquet(temporary, self._grid, self._confident)
        else:
            self._sink = _Ogr(temporary, self._grid, self._confident)
        return self

    def write(self, batch: FeatureBatch) -> None:
        """Add features."""
        self._sink.write(batch)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._sink.close(whole=error is None)
        finally:
            self._stack.__exit__(kind, error, trace)


class _Parquet:
    """GeoParquet 1.1: WKB, CRS as PROJJSON, and bounds of each feature, by which readers skip row groups."""

    def __init__(self, path: Path, grid: GeoBox, confident: bool) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        corners = [pa.field(name, pa.float64()) for name in _CORNERS]
        fields = [("id", pa.int64()), ("class", pa.int32()), ("name", pa.string()), ("area_m2", pa.float64())]
        fields += [("confidence", pa.float64())] if confident else []
        fields += [("geometry", pa.binary()), ("bbox", pa.struct(corners))]
        self._schema = pa.schema(fields)
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")
        self._crs, self._confident = crs_of(grid).to_json_dict(), confident
        self._bounds = np.array([np.inf, np.inf, -np.inf, -np.inf])

    def write(self, batch: FeatureBatch) -> None:
        import pyarrow as pa

        bounds = shapely.bounds(batch.geometries)
        self._bounds[:2] = np.minimum(self._bounds[:2], bounds[:, :2].min(0))
        self._bounds[2:] = np.maximum(self._bounds[2:], bounds[:, 2:].max(0))
        boxes = pa.StructArray.from_arrays([pa.array(c) for c in bounds.T], names=list(_CORNERS))
        columns = batch.columns(self._confident)
        arrays = [pa.array(values, from_pandas=True) for values in columns.values()]
        wkb = pa.array(shapely.to_wkb(batch.geometries), pa.binary())
        self._writer.write_batch(pa.record_batch([*arrays, wkb, boxes], schema=self._schema))

    def close(self, *, whole: bool) -> None:
        if whole:
            column = {
                "encoding": "WKB",
                "geometry_types": ["Polygon"],
                "crs": self._crs,
                "covering": {"bbox": {name: ["bbox", name] for name in _CORNERS}},
            }
            if np.isfinite(self._bounds).all():
                column["bbox"] = self._bounds.tolist()
            geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
            self._writer.add_key_value_metadata({"geo": json.dumps(geo)})
        self._writer.close()


class _Ogr:
    """What GDAL writes. FlatGeobuf cannot be added to: it goes through a GeoPackage beside it."""

    def __init__(self, path: Path, grid: GeoBox, confident: bool) -> None:
        self._path = path
        self._through = path.with_suffix(".gpkg") if path.suffix.lower() == ".fgb" else path
        self._crs, self._confident, self._begun = crs_of(grid).to_wkt(), confident, False

    def write(self, batch: FeatureBatch) -> None:
        columns = batch.columns(self._confident)
        self._put(shapely.to_wkb(batch.geometries), columns)

    def _put(self, wkb: NDArray[np.object_], columns: dict[str, NDArray[Any]]) -> None:
        import pyogrio

        pyogrio.raw.write(
            self._through,
            geometry=wkb,
            field_data=list(columns.values()),
            fields=list(columns),
            layer=_LAYER,
            driver=_DRIVERS[self._through.suffix.lower()],
            geometry_type="Polygon",
            crs=self._crs,
            append=self._begun,
        )
        self._begun = True

    def close(self, *, whole: bool) -> None:
        import pyogrio

        try:
            if whole and not self._begun:  # a map of nodata alone is a file without features
                none = FeatureBatch(*(np.zeros(0, kind) for kind in (object, int, int, object, float, float)))
                self._put(none.geometries, none.columns(self._confident))
            if whole and self._through != self._path:
                with pyogrio.raw.open_arrow(self._through, use_pyarrow=False) as (meta, stream):
                    pyogrio.raw.write_arrow(
                        stream,
                        self._path,
                        driver="FlatGeobuf",
                        layer=_LAYER,
                        geometry_name=meta["geometry_name"] or "wkb_geometry",
                        geometry_type="Polygon",
                        crs=self._crs,
                    )
        finally:
            if self._through != self._path:
                self._through.unlink(missing_ok=True)
