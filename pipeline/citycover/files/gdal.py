"""How GDAL is told to read, and its errors in few words."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import rasterio
from rasterio.io import DatasetReader

from citycover.files.folders import is_zarr
from citycover.files.remote import Place, RemotePath, is_remote
from citycover.files.zarr import ZarrRaster

READ_OPTIONS: dict[str, Any] = {
    # Side-cars (.msk, .aux.xml, .ovr) are looked for by name: EMPTY_DIR would hide them, and listing a
    # folder or a bucket of 100,000 scenes costs more than reading one.
    "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE",
    # Threads that read several sources of a VRT at once (GDAL 3.10) lose their errors: a read with a missing
    # source then "succeeds" and leaves zeros. Each source is still decoded in several threads.
    "VRT_NUM_THREADS": "1",
}
"""GDAL settings under which every scene is described and read."""

REMOTE_OPTIONS: dict[str, Any] = {
    **READ_OPTIONS,
    # Nothing is looked for beside a file at an address: every name would be a request.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MAX_RETRY": "5",
    "GDAL_HTTP_RETRY_DELAY": "0.5",  # seconds, twice as long each time
    # 0 is no answer at all: GDAL itself asks a server that hung no second time.
    "GDAL_HTTP_RETRY_CODES": "0,429,500,502,503,504",
    "GDAL_HTTP_CONNECTTIMEOUT": "20",
    "GDAL_HTTP_LOW_SPEED_TIME": "60",  # seconds at less than 1 byte/s, after which a server counts as gone
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
}
"""GDAL settings under which files of known products are read at their addresses."""


def scene_options(paths: Iterable[str]) -> dict[str, Any]:
    """GDAL settings under which files of a scene are described and read.

    For those across the network: patience, no look for side-cars unless some files lie here, and ranges that
    follow each other in one request. What the environment says of these goes before.
    """
    remote = [is_remote(path) for path in paths]
    if not any(remote):
        return READ_OPTIONS
    patient = REMOTE_OPTIONS | {"GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES", **_store_options()}
    if not all(remote):
        patient |= READ_OPTIONS
    return {name: value for name, value in patient.items() if name not in os.environ}


def options_for(raster: str | Place) -> dict[str, Any]:
    """GDAL settings under which a raster is read; enter them before `open_raster`."""
    return scene_options([str(raster)])


def open_raster(raster: str | Place, overview: int | None = None) -> DatasetReader | ZarrRaster:
    """Open a raster of a product, or an array of a Zarr store.

    In an object store another file must be a GeoTIFF: other formats could name files of this machine.

    Args:
        raster: the file.
        overview: of a file that has some, open this one (from 0) as if it were the raster.

    Raises:
        RasterioError: it cannot be opened.
    """
    if is_zarr(raster):
        return ZarrRaster(str(raster))
    level = {} if overview is None else {"overview_level": overview}
    if isinstance(raster, RemotePath):
        return DatasetReader(f"/vsis3/{raster.bucket}/{raster.key}", driver="GTiff", **level)
    return rasterio.open(raster, **level)


def overview_for(dataset: Any, scale: float) -> tuple[int | None, int]:
    """The coarsest overview of an open dataset whose pixels are no longer than `scale` of its own.

    Returns:
        Its place, from 0, and how many pixels lie along one of it; None and 1: there is none.
    """
    factors = dataset.overviews(1)
    fitting = [factor for factor in factors if factor <= scale]
    return (factors.index(max(fitting)), max(fitting)) if fitting else (None, 1)


def open_known(path: str) -> DatasetReader | ZarrRaster:
    """Open a raster that was described, under the settings of whoever reads.

    One at an address needs a session beside them. `rasterio.open` lays the settings down anew each time,
    which takes as long as GDAL itself.

    Raises:
        RasterioError: it cannot be opened.
    """
    if is_zarr(path):
        return ZarrRaster(path)
    return rasterio.open(path) if is_remote(path) else DatasetReader(path)


def open_unseen(path: str) -> DatasetReader:
    """Open a raster that nobody has looked at, as another file names it: a GeoTIFF or JPEG 2000.

    Both hold their pixels themselves; a mosaic of that name would lead anywhere.

    Raises:
        RasterioError: it cannot be opened, or is none of these.
    """
    return rasterio.open(path, driver="JP2OpenJPEG" if path.lower().endswith(".jp2") else "GTiff")


def _store_options() -> dict[str, Any]:
    """What the environment says to obstore, as GDAL understands it; keys and region it knows itself."""
    # What was read of an object is forgotten when it is closed: another product may lie there by then.
    options = {"CPL_VSIL_CURL_NON_CACHED": "/vsis3/"}
    if endpoint := os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT"):
        address = urlsplit(endpoint)
        options |= {
            "AWS_S3_ENDPOINT": address.netloc + address.path.rstrip("/"),
            "AWS_HTTPS": "NO" if address.scheme == "http" else "YES",
            "AWS_VIRTUAL_HOSTING": "FALSE",
        }
    if os.environ.get("AWS_SKIP_SIGNATURE", "").lower() in {"1", "true", "yes", "on"}:
        options["AWS_NO_SIGN_REQUEST"] = "YES"
    return options


def brief_reason(error: BaseException) -> str:
    """What GDAL said first, on one line: the last exception may only say that there was one before."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(getattr(error, "errmsg", "") or error)
    return " ".join(text.split())[:200].rstrip(".")
