"""What an item of a product says, for tests of what is made of it."""

from __future__ import annotations

from datetime import UTC, datetime

from affine import Affine
from odc.geo.geobox import GeoBox

from citycover.classes.legend import Legend, LegendClass
from citycover.product.stac import ItemContent, ModelSource, ProductFile
from citycover.product.tiff import BandInfo
from citycover.store.statistics import Statistics

LEGEND = Legend(
    name="test",
    classes=(
        LegendClass(id=1, name="Water & ice", color="#0000ff"),
        LegendClass(id=2, name="森", color="#00ff00"),
    ),
)
GRID = GeoBox((30, 40), Affine(2, 0, 500_000, 0, -2, 5_800_000), "EPSG:32633")
BAND = BandInfo(255, "land cover", legend=LEGEND)
STATISTICS = Statistics(1200, 1000, counts={1: 250, 2: 750})
CONTENT = ItemContent(
    id="berlin",
    grid=GRID,
    gsd=2.0,
    created=datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC),
    scene_time="2025-07-01T10:20:30Z",
    inputs=("/data/scene.tif", "https://example.org/b.tif"),
    model=ModelSource("spectral-rgb", "1", "models/spectral-rgb.pt", "ab" * 32, "built-in colour rules"),
    files=(
        ProductFile("landcover.tif", "Land cover", 10, "cd" * 32, (BAND,), (STATISTICS,)),
        ProductFile(
            "confidence.tif",
            "",
            9,
            "ef" * 32,
            (BandInfo(0, "confidence", 1 / 255),),
            (Statistics(9, 4, 1, 9, 20, 150),),
        ),
        ProductFile("landcover.zarr"),
        ProductFile("run.json", size=2, sha256="01" * 32),
    ),
    software={"citycover": "0.1"},
    lineage="Mapped by a test.",
)
