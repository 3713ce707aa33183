"""Whether all that a map imports can be imported on this base, which also compiles it."""

from __future__ import annotations

import importlib

LIBRARIES = (
    "affine", "dask.array", "distributed.nanny", "distributed.cli.dask_worker", "geopandas",
    "google_crc32c", "numcodecs.zstd", "numpy", "obstore", "odc.geo.xr",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.sdk.trace",
    "pandas", "PIL.Image",
    "prometheus_client", "psutil", "pyarrow.parquet", "pydantic", "pyogrio", "pyproj", "pystac",
    "rasterio.features", "rasterio.warp", "rich.progress", "rioxarray", "safetensors",
    "scipy.ndimage", "scipy.stats", "shapely", "torch", "torch.export", "typer", "xarray", "zarr",
)  # fmt: skip


def main() -> None:
    """Import each; the first that is missing a library of the system ends the build."""
    for name in LIBRARIES:
        importlib.import_module(name)


if __name__ == "__main__":
    main()
