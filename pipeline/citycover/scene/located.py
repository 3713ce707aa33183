"""Where a raster lies, by what its header says, or why no map can lie on it."""

from __future__ import annotations

import math
import re
from typing import Any

from rasterio.errors import CRSError

from citycover.files.gdal import brief_reason
from citycover.geometry.grid import grid_of


def crs_name(dataset: Any) -> str | None:
    """Name of the CRS: its EPSG code where it has one."""
    if not dataset.crs:
        return None
    epsg = dataset.crs.to_epsg()
    if epsg:
        return f"EPSG:{epsg}"
    quoted = re.search(r'"([^"]*)"', dataset.crs.to_wkt())
    return quoted[1] if quoted else "unnamed"


def obstacle_of(path: str, dataset: Any) -> str | None:
    """Why a file has no grid on which a map could lie."""
    transform = dataset.transform
    gcps, _ = dataset.gcps
    if gcps and transform.is_identity:
        return (
            f"{path} is located by {len(gcps)} ground control points only; a map needs a CRS and a transform;"
            f" warp it first: gdalwarp -t_srs EPSG:<code> in.tif out.tif"
        )
    if dataset.rpcs is not None and transform.is_identity:
        return (
            f"{path} is located by rational polynomials (RPC) only; a map needs a CRS and a transform; "
            f"orthorectify it first: gdalwarp -rpc -t_srs EPSG:<code> in.tif out.tif"
        )
    rotated = abs(transform.b) * dataset.height + abs(transform.d) * dataset.width
    if not (math.isfinite(sum(transform)) and transform.determinant != 0):
        return (
            f"{path} has a transform without area ({tuple(transform)[:6]}); mend it with gdal_edit.py -a_ullr"
        )
    if rotated > 0.01 * min(abs(transform.a), abs(transform.e)):
        numbers = ", ".join(f"{v:g}" for v in tuple(transform)[:6])
        return (
            f"{path} has a rotated or sheared transform ({numbers}); "
            f"rows and columns must run along the axes of the CRS; warp it first: gdalwarp in.tif out.tif"
        )
    if not dataset.crs:
        what = "no CRS and no transform" if transform.is_identity else "a transform but no CRS"
        return (
            f"{path} has {what}; a map needs to know where it lies; if you know it, write it into the file: "
            f"gdal_edit.py -a_srs EPSG:<code>{' -a_ullr <W N E S>' if transform.is_identity else ''} file"
        )
    if transform.is_identity:
        return (
            f"{path} has a CRS but no transform; a map needs to know where it lies; if you know it, write it "
            f"into the file: gdal_edit.py -a_ullr <W N E S> file"
        )
    try:
        grid_of(dataset)
    except (CRSError, ValueError) as error:
        return (
            f"{path} has a CRS that PROJ does not understand ({brief_reason(error)}); "
            f"write the right one into the file: gdal_edit.py -a_srs EPSG:<code> file"
        )
    return None
