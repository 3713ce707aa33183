"""The rasters of a product: each says what it is and what made it, and has its style for QGIS beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from odc.geo.geobox import GeoBox

from citycover.classes.legend import Legend
from citycover.plan.layers import Layer
from citycover.product.cog import write_cog
from citycover.product.qml import write_style
from citycover.product.stac import ProductFile, describe_cog, describe_file
from citycover.product.tiff import BandInfo
from citycover.product.tiles import Compression, TileSource
from citycover.version import __version__


@dataclass(frozen=True, slots=True)
class Rasters:
    """What all rasters of a product have in common."""

    folder: Path
    """Where they are written."""
    grid: GeoBox
    legend: Legend
    tags: Mapping[str, str]
    """Metadata of each: see `model_tags`."""
    compress: Compression = "zstd"
    threads: int = 2
    """That encode one."""

    def write(self, layer: Layer, sources: Sequence[TileSource], names: Sequence[str]) -> list[ProductFile]:
        """Write a layer with its side files; the raster comes first.

        Args:
            layer: which.
            sources: pixels of each band.
            names: of each band.
        """
        path, style = self.folder / layer.file, self.folder / layer.style
        legend = self.legend if layer.categorical else None
        nodata = layer.nodata_of(self.legend)
        bands = [BandInfo(nodata, name, layer.scale, legend, self.tags) for name in names]
        info = write_cog(
            path, sources, self.grid, bands,
            compress=self.compress, resampling=layer.overviews, threads=self.threads,
        )  # fmt: skip
        write_style(style, layer, self.legend)
        files = [describe_cog(path, bands, info, layer.title), describe_file(style, "Style for QGIS")]
        if layer.categorical:
            files.append(describe_file(path.with_name(f"{path.name}.aux.xml"), "Names of the classes"))
        return files


def model_tags(name: str, sha256: str, evidence: str) -> dict[str, str]:
    """What made a raster: network and file, this program, and what the map rests on."""
    return {"model": name, "model_sha256": sha256, "citycover": __version__, "evidence": evidence}
