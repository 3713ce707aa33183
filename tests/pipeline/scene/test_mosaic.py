import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rasters import write

from citycover.errors import ConfigError, LayoutError, SceneError
from citycover.geometry.crs import tie
from citycover.geometry.grid import ground_sample_distance
from citycover.geometry.window import Window
from citycover.job.job import prepare
from citycover.job.request import Imagery
from citycover.model.archive import read_model_file
from citycover.model.builtin import builtin_path
from citycover.read.raster import RasterReader
from citycover.scene.assemble import assemble_scene, describe_scene
from citycover.scene.file import describe_files
from citycover.scene.laying import Laying

CORNER = Affine(10, 0, 5e5, 0, -10, 5.8e6)


def sheet(path: Path, col: float = 0, row: float = 0, *, bands: int = 3, **changes: object) -> Path:
    changes = {"transform": CORNER * Affine.translation(col, row), "photometric": "RGB"} | changes
    return write(path, np.full((bands, 20, 30), 9, changes.pop("dtype", "uint8")), **changes)


def test_neighbours_lie_on_one_grid(tmp_path: Path) -> None:
    files = [sheet(tmp_path / "x1.tif", 30), sheet(tmp_path / "x2.tif", 0, 20), sheet(tmp_path / "x3.tif")]
    scene = describe_scene(files, None)
    assert scene.shape == (40, 60) and scene.grid.transform == CORNER
    (group,) = scene.groups
    assert [(s.window.row, s.window.col) for s in group.sheets] == [(0, 30), (20, 0), (0, 0)]
    assert group.paths == tuple(map(str, files)) and len(scene.fingerprints) == 3


def test_the_commonest_lattice_is_taken_and_another_where_it_is_asked_for(tmp_path: Path) -> None:
    files = [
        sheet(tmp_path / "odd.tif", 0.5),
        sheet(tmp_path / "x1.tif", 40),
        sheet(tmp_path / "x2.tif", 70),
    ]
    scene = describe_scene(files, None)
    assert [s.kernel for s in scene.groups[0].sheets] == ["bilinear", None, None]
    scene = describe_scene(files, None, laying=Laying(grid=str(files[0]), resampling="cubic"))
    assert [s.kernel for s in scene.groups[0].sheets] == [None, "cubic", "cubic"]
    scene = describe_scene(files, None, laying=Laying(grid="EPSG:25833/20"))
    assert scene.grid.crs.epsg == 25833 and scene.grid.transform.a == 20
    assert {s.kernel for s in scene.groups[0].sheets} == {"average"}


@pytest.mark.parametrize("crs", ["EPSG:32634", "EPSG:3857", "EPSG:4326"])
def test_a_crs_alone_keeps_the_size_of_pixels_on_the_ground(tmp_path: Path, crs: str) -> None:
    scene = describe_scene([sheet(tmp_path / "x.tif")], None, laying=Laying(grid=crs))
    assert ground_sample_distance(scene.grid) == pytest.approx(10, rel=0.01)
    assert scene.shape[0] * scene.shape[1] == pytest.approx(600, rel=0.5)


@pytest.mark.parametrize("kernel", [None, "average", "bilinear", "cubic", "nearest"])
def test_more_pixels_than_can_be_weighed_for_one_are_not_begun_with(
    tmp_path: Path, kernel: str | None
) -> None:
    files = [sheet(tmp_path / "x.tif")]
    assert describe_scene(files, None, laying=Laying(grid="EPSG:32633/2500", resampling=kernel))
    for times in (1e3, 1e9):
        laying = Laying(grid=f"EPSG:32633/{10 * times:g}", resampling=kernel)
        if kernel == "nearest":
            assert max(describe_scene(files, None, laying=laying).shape) <= 2
            continue
        with pytest.raises(
            SceneError,
            match=rf"x.tif .* pixels {re.escape(f'{times:.3g}')} times .*, and 256 times is the most",
        ):
            describe_scene(files, None, laying=laying)


@pytest.mark.parametrize("kernel", [None, "nearest"])
def test_pixels_that_nothing_is_known_of_are_not_begun_with(tmp_path: Path, kernel: str | None) -> None:
    files = [sheet(tmp_path / "x.tif")]
    assert describe_scene(files, None, laying=Laying(grid="EPSG:32633/0.04", resampling=kernel))
    for side in (0.01, 1e-9):
        laying = Laying(grid=f"EPSG:32633/{side:g}", resampling=kernel)
        with pytest.raises(SceneError, match=r"--grid: x.tif is .* times as large as its own.*1/256 of them"):
            describe_scene(files, None, laying=laying)


@pytest.mark.parametrize(
    ("crs", "said"),
    [
        ("EPSG:4978", "no plane that a map could lie on"),
        ("EPSG:5773/1", "no plane that a map could lie on"),
        ("EPSG:4326+5773", "of this place, of two dimensions"),
        ("EPSG:32633/1e-300", "'1e-300' is no pixel size"),
    ],
)
def test_a_grid_lies_on_a_plane(tmp_path: Path, crs: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        describe_scene([sheet(tmp_path / "x.tif")], None, laying=Laying(grid=crs))


def test_sheets_of_two_utm_zones_are_one_scene(tmp_path: Path) -> None:
    x, y = tie("EPSG:32632", "EPSG:32633", "x").transform(707_300, 5.6e6)
    west = sheet(tmp_path / "west.tif", crs="EPSG:32632", transform=Affine(10, 0, 707_000, 0, -10, 5.6e6))
    east = sheet(tmp_path / "east.tif", crs="EPSG:32633", transform=Affine(10, 0, x, 0, -10, y))
    scene = describe_scene([west, east], None)
    assert scene.grid.crs.epsg == 32632
    assert 20 < scene.shape[0] < 30 and 58 < scene.shape[1] < 65


def test_the_scene_is_another_where_sheets_lie_otherwise(tmp_path: Path) -> None:
    files = describe_files([sheet(tmp_path / "x1.tif"), sheet(tmp_path / "x2.tif", 20)])
    layings = [
        Laying(),
        Laying("feather"),
        Laying(grid="EPSG:32633/20"),
    ]
    scenes = [assemble_scene(files, None, laying=laying) for laying in layings]
    scenes.append(assemble_scene(files[::-1], None))
    assert len({scene.identity for scene in scenes}) == 4
    again = assemble_scene(files, None)
    assert again.identity == scenes[0].identity == dataclasses.replace(again).identity


def test_sheets_that_show_half_of_each_other_need_a_word(tmp_path: Path) -> None:
    files = [sheet(tmp_path / "x1.tif"), sheet(tmp_path / "x2.tif", 14), sheet(tmp_path / "x3.tif", 0, 12)]
    with pytest.raises(SceneError, match=r"x1.tif and x2.tif both show 53% of a place; .*--overlap newest"):
        describe_scene(files, None)
    assert describe_scene(files, None, laying=Laying("first")).shape == (32, 44)
    assert describe_scene(files[::2], None).shape == (32, 30)


def test_the_date_of_sheets_is_the_latest(tmp_path: Path) -> None:
    files = [sheet(tmp_path / "a_20240203.tif"), sheet(tmp_path / "a_20220101.tif", 30)]
    assert describe_scene(files, None).time == "2024-02-03"


@pytest.mark.parametrize(
    ("others", "laying", "said"),
    [
        ([{"bands": 1, "photometric": "MINISBLACK"}], {}, "red, green, blue, x1.tif lies on .* has band 1"),
        ([{"dtype": "uint16"}], {}, "pixels of x0.tif are uint8, those of x1.tif are uint16; .*convert"),
        ([{}], {"overlap": "newest"}, "nothing says when x0.tif was taken; .*--overlap first"),
        ([{"col": 1e6}], {}, "2 sheets lie far apart .* map them one by one"),
        ([{"crs": "EPSG:3857"}], {"grid": "EPSG:2193/10"}, "ends; choose another with --grid|far apart"),
    ],
)  # fmt: skip
def test_what_is_no_sheet_of_the_scene_is_refused(
    tmp_path: Path, others: list[dict], laying: dict, said: str
) -> None:
    files = [sheet(tmp_path / "x0.tif")]
    files += [sheet(tmp_path / f"x{i}.tif", **{"col": 30} | other) for i, other in enumerate(others, 1)]
    with pytest.raises(SceneError, match=said):
        describe_scene(files, None, laying=Laying(**laying))


@pytest.mark.parametrize(
    ("col", "laying", "said"),
    [(1e6, {}, "lie far apart"), (5, {}, "both show"), (30, {"overlap": "newest"}, "nothing says when")],
)
def test_what_no_model_would_mend_is_told_without_the_advice_to_take_another(
    tmp_path: Path, col: float, laying: dict, said: str
) -> None:
    files = tuple(str(sheet(tmp_path / f"x{k}.tif", k * col)) for k in (0, 1))
    with pytest.raises(LayoutError, match=said) as refused:
        prepare(Imagery(files, laying=Laying(**laying)))
    assert "model" not in str(refused.value)


def test_a_file_elsewhere_that_the_model_cannot_take_is_not_left_out(tmp_path: Path) -> None:
    card = read_model_file(builtin_path("spectral-rgb")).card
    files = [sheet(tmp_path / "x0.tif"), sheet(tmp_path / "x1.tif", 30, bands=1, photometric="MINISBLACK")]
    said = r"x1\.tif lies elsewhere than x0\.tif and cannot be a sheet .*leave it out"
    with pytest.raises(SceneError, match=said):
        describe_scene(files, card)
    assert describe_scene(files[:1], card).shape == (20, 30)


def test_two_dates_of_a_place_need_a_word(tmp_path: Path) -> None:
    files = [sheet(tmp_path / "a_20220101.tif"), sheet(tmp_path / "a_20240101.tif")]
    with pytest.raises(SceneError, match="--overlap"):
        describe_scene(files, None, bands=("1", "2", "3"))
    scene = describe_scene(files, None, laying=Laying("newest"))
    assert [Path(s.bands[0].path).name for s in scene.groups[0].sheets] == [
        "a_20240101.tif",
        "a_20220101.tif",
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"overlap": "last"}, "--overlap takes first, newest, nearest-centre, feather; got 'last'"),
        ({"resampling": "lanczos"}, "--resampling takes nearest, .*; got 'lanczos'"),
        ({"grid": "no_such.tif"}, "'no_such.tif' is no CRS; give --grid a raster"),
        ({"grid": "EPSG:32633/ten"}, "'ten' is no pixel size"),
        ({"grid": "EPSG:32633/-3"}, "'-3' is no pixel size"),
    ],
)
def test_bad_options_say_what_is_good(tmp_path: Path, given: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        describe_scene([sheet(tmp_path / "x.tif")], None, laying=Laying(**given))


def test_thousands_of_sheets_are_laid_out_in_one_go(tmp_path: Path) -> None:
    (info,) = describe_files([sheet(tmp_path / "x.tif")])
    files = []
    for row in range(50):
        for col in range(60):
            grid = GeoBox((20, 30), CORNER * Affine.translation(30 * col, 20 * row), info.grid.crs)
            path = f"/tiles/{row}_{col}.tif"
            bands = tuple(dataclasses.replace(band, file=Path(path).name) for band in info.bands)
            files.append(dataclasses.replace(info, path=path, grid=grid, bands=bands))
    scene = assemble_scene(files, None)
    assert scene.shape == (1000, 1800) and len(scene.groups[0].sheets) == 3000
    assert not any(s.kernel for s in scene.groups[0].sheets)


@pytest.mark.parametrize("offset_first", [False, True])
def test_sheets_with_an_offset_and_without_become_numbers_of_one_kind(
    tmp_path: Path, offset_first: bool
) -> None:
    card = read_model_file(builtin_path("spectral-s2")).card
    numbers = np.arange(4 * 20 * 30, dtype=np.uint16).reshape(4, 20, 30) + 1
    plain = write(tmp_path / "a.tif", numbers, transform=CORNER)
    offset = write(tmp_path / "b.tif", numbers + 1000, transform=CORNER * Affine.translation(30, 0))
    for path in (plain, offset):
        with rasterio.open(path, "r+") as dataset:
            dataset.descriptions = ("B04", "B03", "B02", "B08")
            if path == offset:
                dataset.scales, dataset.offsets = (1e-4,) * 4, (-0.1,) * 4
    scene = describe_scene([offset, plain] if offset_first else [plain, offset], card)
    reader = RasterReader(scene.groups[0], threads=1)
    values, valid = np.zeros((20, 60, 4), reader.dtype), np.zeros((20, 60), np.bool_)
    reader.read_into(Window(0, 0, 20, 60), values, valid)
    reader.close()
    assert valid.all()
    np.testing.assert_array_equal(values[:, :30], numbers.transpose(1, 2, 0))
    np.testing.assert_array_equal(values[:, 30:], numbers.transpose(1, 2, 0))
