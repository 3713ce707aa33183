"""Tiles of a mosaic are pieces of the map of the whole: no pixel tells where it was cut."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from making import make_card
from numpy.typing import NDArray

from citycover.errors import ConfigError, PlanError
from citycover.files.remote import Place
from citycover.geometry.tiles import Tile
from citycover.job.request import EngineOptions, Imagery, MapRequest, Where
from citycover.model.card import WindowRule
from citycover.model.network import write_torchscript
from citycover.run.map import map_scene
from citycover.scene.laying import Laying

SIDE = 64
"""Pixels of a tile: four steps of 16."""

CORNER = (500_032, 5_800_000)
"""x and y of the whole: columns of tiles begin at 7813, and 90,625 rows end here."""


class Uneven(torch.nn.Module):
    """Sees around a pixel, and sees otherwise at each place of a window: any other window shows."""

    def __init__(self) -> None:
        super().__init__()
        self.near = torch.nn.Conv2d(3, 5, 5, padding=2)
        torch.manual_seed(3)
        for parameter in self.near.parameters():
            torch.nn.init.normal_(parameter, std=0.01)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        found = self.near(image.to(torch.float32))
        ramp = (
            torch.linspace(-1.0, 1.0, image.shape[-1]) + torch.linspace(-0.5, 1.0, image.shape[-2])[:, None]
        )
        return found + ramp * torch.arange(5.0)[:, None, None] / 3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "uneven.pt"
    card = make_card(WindowRule(size=28, multiple=1, maximum=28), 3, 6)
    write_torchscript(torch.jit.script(Uneven()), card, path)
    return path


def write(path: Path, values: NDArray[np.uint8], row: int, col: int) -> str:
    """(y, x, band) pixels of the whole from a row and column on; 0 is nodata."""
    transform = Affine(1, 0, CORNER[0] + col, 0, -1, CORNER[1] - row)
    shape = {"height": values.shape[0], "width": values.shape[1], "count": 3, "photometric": "minisblack"}
    with rasterio.open(
        path, "w", driver="GTiff", dtype="uint8", crs="EPSG:32633", transform=transform, nodata=0, **shape
    ) as out:
        out.write(values.transpose(2, 0, 1))
        out.descriptions = ("a", "b", "c")
    return str(path)


def request_of(files: list[str], out: Path, model: Path, tile: Tile | None = None) -> MapRequest:
    return MapRequest(
        Imagery(tuple(files), laying=Laying(grid="EPSG:32633/1" if tile else None, overlap="first")),
        out,
        str(model),
        where=Where(tile=tile),
        engine=EngineOptions(threads=1, batch=4, window=28, precision="fp32"),
    )


def classes(folder: Place) -> NDArray[np.uint8]:
    with rasterio.open(Path(str(folder)) / "landcover.tif") as raster:
        found: NDArray[np.uint8] = raster.read(1)
    return found


def tile_at(row: int, col: int) -> Tile:
    """Tile of the whole, by its place among them from the upper left."""
    return Tile(SIDE, CORNER[0] // SIDE + col, CORNER[1] // SIDE - 1 - row)


@settings(max_examples=8, deadline=None)
@given(cuts=st.tuples(st.integers(1, 127), st.integers(1, 127)), seed=st.integers(0, 99), gap=st.booleans())
def test_tiles_are_the_map_of_the_whole_cut(model: Path, cuts: tuple[int, int], seed: int, gap: bool) -> None:
    # Around what is seen lies a ring of nodata, so that the whole ends where nothing is.
    image = np.zeros((4 * SIDE, 4 * SIDE, 3), np.uint8)
    image[SIDE:-SIDE, SIDE:-SIDE] = np.random.default_rng(seed).integers(1, 255, (2 * SIDE, 2 * SIDE, 3))
    row, col = SIDE + cuts[0], SIDE + cuts[1]
    if gap:
        image[SIDE:row, col:-SIDE] = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        straight = map_scene(request_of([write(folder / "whole.tif", image, 0, 0)], folder / "whole", model))
        sheets = [
            write(folder / f"{r}-{c}.tif", image[rows, cols], r, c)
            for rows, r in ((slice(SIDE, row), SIDE), (slice(row, 3 * SIDE), row))
            for cols, c in ((slice(SIDE, col), SIDE), (slice(col, 3 * SIDE), col))
            if not (gap and r < row and c == col)
        ]
        whole = classes(straight.folder)
        assert len(np.unique(whole)) > 3
        for r, c in ((1, 1), (1, 2), (2, 1), (2, 2)):
            tile = tile_at(r, c)
            product = map_scene(request_of(sheets, folder / tile.name, model, tile))
            place = (slice(r * SIDE, (r + 1) * SIDE), slice(c * SIDE, (c + 1) * SIDE))
            np.testing.assert_array_equal(classes(product.folder), whole[place])


def test_a_tile_lies_where_its_name_says_and_is_called_so(model: Path, tmp_path: Path) -> None:
    image = np.random.default_rng(1).integers(1, 255, (SIDE, SIDE, 3), np.uint8)
    tile = tile_at(0, 0)
    assert tile.name == "x7813_y90624"
    product = map_scene(request_of([write(tmp_path / "a.tif", image, 20, 30)], tmp_path / "out", model, tile))
    with rasterio.open(str(product.folder / "landcover.tif")) as raster:
        assert raster.bounds == (7813 * 64, 90624 * 64, 7814 * 64, 90625 * 64)
        assert (raster.read(1) > 0).sum() == (SIDE - 20) * (SIDE - 30)
    assert '"id": "x7813_y90624-test"' in (product.folder / "item.json").read_text()


def test_parts_of_a_tile_are_left_out_by_polygons(model: Path, tmp_path: Path) -> None:
    image = np.random.default_rng(1).integers(1, 255, (SIDE, SIDE, 3), np.uint8)
    file = write(tmp_path / "a.tif", image, 0, 0)
    (tmp_path / "half.geojson").write_text(
        '{"type": "Polygon", "crs": {"type": "name", "properties": {"name": "EPSG:32633"}}, "coordinates": '
        f"[[[{CORNER[0]}, 5799000], [{CORNER[0] + 32}, 5799000], [{CORNER[0] + 32}, 5801000], "
        f"[{CORNER[0]}, 5801000], [{CORNER[0]}, 5799000]]]}}"
    )
    asked = request_of([file], tmp_path / "out", model, tile_at(0, 0))
    whole = classes(map_scene(asked).folder)
    asked = replace(asked, out=tmp_path / "half", where=replace(asked.where, aoi=tmp_path / "half.geojson"))
    half = classes(map_scene(asked).folder)
    np.testing.assert_array_equal(half[:, :32], whole[:, :32])
    assert half.shape == (SIDE, SIDE) and not half[:, 32:].any()


def test_what_cannot_be_cut_says_what_can(model: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "a.tif", np.ones((SIDE, SIDE, 3), np.uint8), 0, 0)
    asked = request_of([file], tmp_path / "out", model, Tile(97, 0, 0))
    with pytest.raises(PlanError, match="nearest that fit are 96 and 112"):
        map_scene(asked)
    with pytest.raises(ConfigError, match="tiles need a lattice that no sheet decides"):
        map_scene(replace(asked, imagery=Imagery((file,))))
    with pytest.raises(ConfigError, match="a tile takes polygons"):
        Where(bbox=(0, 0, 1, 1), tile=Tile(64, 0, 0))
