"""Trust: which files may be read because another file names them.

What a user names is read, wherever it is. What a file names in turn (the sources of a VRT) may come from a
stranger: it stays below the folder of what was named, is a raster of a known format, and never lies across
the network, unless the user says otherwise.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from citycover.errors import SceneError
from citycover.files.remote import is_remote

PIXEL_DRIVERS = (
    "GTiff", "COG", "VRT", "JP2OpenJPEG", "JP2KAK", "JP2ECW", "JP2MrSID", "JPEG", "PNG", "WEBP", "BMP", "GIF",
    "HFA", "ENVI", "EHdr", "ERS", "NITF", "PCIDSK", "netCDF", "HDF5", "HDF5Image", "HDF4", "HDF4Image",
    "GRIB", "AAIGrid", "SAGA", "RST", "KRO", "GPKG", "MBTiles", "RMF", "SRTMHGT", "DTED", "LAN", "PNM",
)  # fmt: skip
"""Formats that hold their pixels themselves (VRT: whose sources are looked at)."""

REMOTE_DRIVERS = frozenset(
    {"WMS", "WCS", "WMTS", "GTI", "STACIT", "STACTA", "OGCAPI", "EEDA", "EEDAI", "DAAS", "PLMOSAIC", "HTTP",
     "NGW", "PostGISRaster", "GeoRaster", "TIL", "ECRGTOC", "RPFTOC", "MRF", "DERIVED"}
)  # fmt: skip
"""Formats whose files only say where pixels are."""

_PARTS = re.compile(
    r'(?:NETCDF|HDF[45](?:_SDS)?|GTIFF_DIR(?::(?:off:)?\d+)?):"?([^"]+?)"?(?::[^/\\]*)?', re.IGNORECASE
)
"""Connection strings of a part of a file."""

_ARCHIVE = re.compile(r"/vsi(?:zip|tar|gzip|7z|rar)/\{?(.*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Trust:
    """What the user allows beyond the default."""

    remote: bool = False
    """Files may name others across the network."""
    folders: tuple[Path, ...] = ()
    """Files may name others below these, beside the folder that they lie in themselves."""

    def check(self, source: str, named: str, *, raw: bool = False) -> None:
        """Refuse a source that the file `named` has no right to name.

        Args:
            source: absolute path or GDAL connection string.
            named: the file that the user named.
            raw: bytes of any file are taken for pixels; only folders that are allowed by name will do.

        Raises:
            SceneError: it may not be read; names both files and the option.
        """
        if is_remote(source):
            beside = (
                is_remote(named) and source.startswith(named.rpartition("/")[0] + "/") and ".." not in source
            )
            if not (self.remote or beside):
                raise SceneError(
                    f"{named} names {source}, which lies across the network; nothing was fetched; "
                    f"if you trust the file, give --allow-remote"
                )
            return
        local = _local(source)
        if local is None:
            raise SceneError(
                f"{named} names {source[:200]}, which is no plain file; "
                f"sources of a mosaic must be raster files; make it anew of such files (gdalbuildvrt)"
            )
        roots = [os.path.normpath(folder.absolute()) for folder in self.folders]
        if not raw:
            roots += folders_of(named)
        if not any(_below(local, root) for root in roots):
            what = "as raw bytes" if raw else "outside its own folder"
            raise SceneError(
                f"{named} names {local} {what}; nothing was read of it; "
                f"if you trust the file, give --allow-path {Path(local).parent}"
            )


def folders_of(named: str) -> list[str]:
    """The folders of a file that was named: where the name lies, and where its link leads."""
    local = _local(named)
    if local is None:
        return []
    return [os.path.dirname(local), os.path.dirname(os.path.realpath(local))]  # noqa: PTH120 - strings, not files


def _local(path: str) -> str | None:
    """The plain file behind a path: itself, an archive, the file of which it is a part. None: nothing."""
    if archive := _ARCHIVE.fullmatch(path):
        inner = archive[1]
        return _local(inner if inner.startswith("/") else os.path.abspath(inner))  # noqa: PTH100
    if part := _PARTS.fullmatch(path):
        path = part[1]
    if path.startswith(("/vsi", "<", "{")) or re.match(r"[A-Za-z][A-Za-z0-9_]+:", path):
        return None
    return os.path.normpath(os.path.abspath(path))  # noqa: PTH100 - links stay: who made them is the user


def _below(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)
