import math
import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp

from citycover.classes.legend import Legend, LegendClass
from citycover.errors import SceneError
from citycover.geometry.grid import (
    ground_sample_distance,
    nested_ratio,
    pixel_ground_size,
    resampled_grid,
    same_grid,
)
from citycover.model.card import BandGroup, ModelCard, WindowRule
from citycover.scene.assemble import assemble_scene, describe_scene, fits
from citycover.scene.file import describe_files
from citycover.scene.laying import Laying

UTM = "EPSG:32632"
NORTH_UP = Affine(1, 0, 500_000, 0, -1, 5_000_000)
RGB = ("red", "green", "blue")
S2 = ("T32TQM_20220101T101010_B02_10m.tif", "T32TQM_20220101T101010_B03_10m.tif")


CUBIC = Laying(resampling="cubic")


def card(bands=RGB, dtypes=("uint8",), gsd=None, native=None, more=()):
    return ModelCard(
        name="probe",
        groups=(BandGroup(bands=bands, dtypes=dtypes), *more),
        gsd=gsd,
        native_gsd=native,
        window=WindowRule(size=64),
        stride=2,
        trim=4,
        feather=4,
        legend=Legend(
            name="x",
            nodata=0,
            classes=(
                LegendClass(id=1, name="a", color="#ff0000"),
                LegendClass(id=2, name="b", color="#00ff00"),
            ),
        ),
    )


def write(path, count=3, dtype="uint8", shape=(20, 30), transform=NORTH_UP, crs=UTM, tags=None, **options):
    profile = {"driver": "GTiff", "count": count, "dtype": dtype, "height": shape[0], "width": shape[1]}
    colours = options.pop("colours", None)
    descriptions = options.pop("descriptions", None)
    if transform is not None:
        profile["transform"] = transform
    with rasterio.open(path, "w", crs=crs, **profile, **options) as dataset:
        dataset.write(np.ones((count, *shape), dtype))
        if colours:
            dataset.colorinterp = [ColorInterp[c] for c in colours]
        for i, text in enumerate(descriptions or (), 1):
            dataset.set_band_description(i, text)
        if tags:
            dataset.update_tags(**tags)
    return path


# What is accepted


def test_rgb_file_fits_an_rgb_card(tmp_path):
    scene = describe_scene([write(tmp_path / "a_20220131T101112.tif", photometric="rgb")], card())
    (group,) = scene.groups
    assert [(b.index, b.name, b.validity) for b in group.bands] == [
        (1, "red", "none"),
        (2, "green", "none"),
        (3, "blue", "none"),
    ]
    assert group.dtype == "uint8"
    assert group.shape == (20, 30)
    assert scene.gsd == pytest.approx(1, rel=1e-3)
    assert scene.time == "2022-01-31T10:11:12Z"
    ((path, size, mtime),) = scene.fingerprints
    assert Path(path).is_absolute()
    assert size == Path(path).stat().st_size
    assert mtime == Path(path).stat().st_mtime_ns


def test_relative_and_absolute_paths_are_the_same_scene(tmp_path, monkeypatch):
    path = write(tmp_path / "a.tif", photometric="rgb")
    monkeypatch.chdir(tmp_path)
    assert describe_scene(["a.tif"], card()).identity == describe_scene([path], card()).identity


def test_without_a_card_all_bands_are_taken_in_file_order(tmp_path):
    one = write(tmp_path / "a.tif", count=2, dtype="uint16", descriptions=("VV", "odd one"))
    coarse = write(
        tmp_path / "b.tif", count=1, dtype="float64", shape=(10, 15), transform=NORTH_UP * Affine.scale(2)
    )
    scene = describe_scene([coarse, one], None)
    assert [(g.name, g.ratio, g.dtype) for g in scene.groups] == [
        ("image", 1, "uint16"),
        ("image2", 2, "float32"),
    ]
    assert [b.name for b in scene.groups[0].bands] == ["VV", "odd one"]


def test_bands_in_separate_files_are_ordered_by_the_card(tmp_path):
    files = [write(tmp_path / f"x-WV03-{c}.tif", count=1) for c in "BGNR"]
    scene = describe_scene(files, card((*RGB, "nir")))
    assert [Path(b.path).stem[-1] for b in scene.groups[0].bands] == ["R", "G", "B", "N"]
    assert len(scene.fingerprints) == 4


def test_files_that_no_band_is_taken_from_are_left_alone(tmp_path):
    rgb = write(tmp_path / "a.tif", photometric="rgb")
    other = write(tmp_path / "S2_B11_20m.tif", count=1, descriptions=("B11",))
    scene = describe_scene([rgb, other], card())
    assert len(scene.fingerprints) == 1


def test_a_second_scene_is_not_dropped_in_silence(tmp_path):
    one = write(tmp_path / "a.tif", photometric="rgb")
    other = write(tmp_path / "c.tif")
    with pytest.raises(SceneError, match=rf"no band of {other.name} is used.*--overlap"):
        describe_scene([one, other], card(), bands=("1", "2", "3"))


@pytest.mark.parametrize("ending", ["tif", "TIF"])
def test_files_called_by_their_band_alone_are_found(tmp_path, ending):
    names = ("B02", "B03", "B04", "B8A", "B11")
    files = [write(tmp_path / f"{name}.{ending}", count=1) for name in names]
    scene = describe_scene(files, card((*RGB, "nir", "swir16")))
    assert [Path(b.path).stem for b in scene.groups[0].bands] == ["B04", "B03", "B02", "B8A", "B11"]
    named = describe_scene(files, card((*RGB, "nir", "swir16")), bands=("B04", "B03", "B02", "B8A", "B11"))
    assert named.groups == scene.groups
    words = [write(tmp_path / f"{name}.{ending}", count=1) for name in ("blue", "green", "red")]
    assert [Path(b.path).stem for b in describe_scene(words, card()).groups[0].bands] == list(RGB)


@pytest.mark.parametrize("names", [("B2", "B3", "B4"), ("SR_B1", "SR_B2", "SR_B3"), ("x_b1", "x_b2", "x_b3")])
def test_no_order_is_proposed_where_something_is_written_on_the_bands(tmp_path, names):
    files = [write(tmp_path / f"{name}.tif", count=1) for name in names]
    stacked = [write(tmp_path / "stack.tif", descriptions=names)]
    for scene in (files, stacked):
        with pytest.raises(SceneError) as refused:
            describe_scene(scene, card())
        assert "1,2,3" not in str(refused.value)
        assert all(name in str(refused.value) for name in (*names, "red, green, blue"))


def test_a_card_that_learned_from_numbers_finds_them_again(tmp_path):
    path = write(tmp_path / "a.tif", count=4)
    learned = tuple(band.name for band in describe_scene([path], None, bands=("3", "2", "1")).groups[0].bands)
    assert [b.index for b in describe_scene([path], card(learned)).groups[0].bands] == [3, 2, 1]


def test_south_up_is_accepted(tmp_path):
    path = write(tmp_path / "a.tif", transform=Affine(1, 0, 500_000, 0, 1, 5_000_000), photometric="rgb")
    assert describe_scene([path], card()).grid.transform.e == 1


@pytest.mark.parametrize("dtype", ["int8", "uint32", "int32", "int64", "float64"])
def test_wide_types_are_read_as_float32_where_the_card_takes_it(tmp_path, dtype):
    path = write(tmp_path / "a.tif", dtype=dtype)
    scene = describe_scene([path], card(dtypes=("uint16", "float32")), bands=["1", "2", "3"])
    assert scene.groups[0].dtype == "float32"
    assert scene.groups[0].bands[0].dtype == dtype


def test_groups_of_two_resolutions_are_sorted_by_name_odd_sizes_too(tmp_path):
    fine = [write(tmp_path / name, count=1, dtype="uint16", shape=(21, 31)) for name in S2]
    coarse = write(
        tmp_path / "T32TQM_20220101T101010_B11_20m.tif",
        count=1,
        dtype="uint16",
        shape=(11, 16),
        transform=NORTH_UP * Affine.scale(2),
    )
    swir = BandGroup(name="swir", bands=(("swir16", "B11"),), ratio=2, dtypes=("uint16",))
    needs = card(("green", "blue"), ("uint16",), more=(swir,))
    scene = describe_scene([coarse, *fine], needs)
    assert [(g.ratio, [b.name for b in g.bands]) for g in scene.groups] == [
        (1, ["green", "blue"]),
        (2, ["swir16"]),
    ]
    by_number = describe_scene([coarse, *fine], needs, bands=["3", "2", "1"])
    assert by_number.groups == scene.groups


# Validity


def test_tag_option_mask_and_alpha_are_told_apart(tmp_path):
    tagged = write(tmp_path / "tag.tif", photometric="rgb", nodata=7)
    assert {(b.validity, b.nodata) for b in describe_scene([tagged], card()).groups[0].bands} == {
        ("nodata", 7)
    }
    assert describe_scene([tagged], card(), nodata=9).groups[0].bands[0].nodata == 9

    masked = write(tmp_path / "mask.tif", photometric="rgb")
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(masked, "r+") as dataset:
        dataset.write_mask(np.ones((20, 30), bool))
    assert describe_scene([masked], card()).groups[0].bands[0].validity == "mask"
    both = describe_scene([masked], card(), nodata=0).groups[0].bands[0]
    assert (both.validity, both.nodata) == ("mask", 0)

    rgba = write(tmp_path / "rgba.tif", count=4, photometric="rgb", alpha="yes")
    assert describe_scene([rgba], card()).groups[0].bands[0].validity == "alpha"
    assert len(describe_scene([rgba], None).groups[0].bands) == 3


def test_alpha_that_is_chosen_as_a_band_is_data(tmp_path):
    rgba = write(tmp_path / "rgba.tif", count=4, photometric="rgb", alpha="yes")
    needs = card((*RGB, "nir"))
    with pytest.raises(SceneError, match="pass --bands 1,2,3,4"):
        describe_scene([rgba], needs)
    scene = describe_scene([rgba], needs, bands=["1", "2", "3", "4"])
    assert {b.validity for b in scene.groups[0].bands} == {"none"}


def test_naip_alpha_is_near_infrared_even_for_an_rgb_model(tmp_path):
    path = write(tmp_path / "m_3211605_ne_11_060_20200415.tif", count=4, photometric="rgb", alpha="yes")
    assert [b.index for b in describe_scene([path], card((*RGB, "nir"))).groups[0].bands] == [1, 2, 3, 4]
    assert {b.validity for b in describe_scene([path], card()).groups[0].bands} == {"none"}


def test_impossible_nodata_is_ignored_in_a_tag_and_refused_in_the_option(tmp_path):
    path = tmp_path / "a.vrt"
    write(tmp_path / "a.tif", count=1)
    path.write_text(
        '<VRTDataset rasterXSize="30" rasterYSize="20"><SRS>EPSG:32632</SRS>'
        "<GeoTransform>500000,1,0,5000000,0,-1</GeoTransform>"
        '<VRTRasterBand dataType="Byte" band="1"><NoDataValue>-9999</NoDataValue>'
        '<SimpleSource><SourceFilename relativeToVRT="1">a.tif</SourceFilename></SimpleSource>'
        "</VRTRasterBand></VRTDataset>"
    )
    assert describe_scene([path], None).groups[0].bands[0].nodata is None
    with pytest.raises(SceneError, match="--nodata -9999 cannot occur"):
        describe_scene([tmp_path / "a.tif"], None, nodata=-9999)


# What is refused


def test_files_that_are_no_rasters_are_refused(tmp_path):
    with pytest.raises(SceneError, match="no such file"):
        describe_scene([tmp_path / "missing.tif"], None)
    with pytest.raises(SceneError, match="is a folder"):
        describe_scene([tmp_path], None)
    (tmp_path / "empty.tif").touch()
    with pytest.raises(SceneError, match="is empty"):
        describe_scene([tmp_path / "empty.tif"], None)
    (tmp_path / "text.tif").write_text("hello")
    with pytest.raises(SceneError, match="cannot be opened as a raster"):
        describe_scene([tmp_path / "text.tif"], None)
    with pytest.raises(SceneError, match="no scene was given"):
        describe_scene([], None)


def test_what_has_no_place_on_the_map_is_refused(tmp_path):
    with pytest.raises(SceneError, match="a transform but no CRS"):
        describe_scene([write(tmp_path / "a.tif", crs=None)], None)
    with pytest.raises(SceneError, match="no CRS and no transform"):
        describe_scene([write(tmp_path / "b.tif", crs=None, transform=None)], None)
    with pytest.raises(SceneError, match="a CRS but no transform"):
        describe_scene([write(tmp_path / "c.tif", transform=None)], None)
    for a, b, d in ((float("nan"), 0, 0), (float("inf"), 0, 0), (1, -1, 1)):
        with pytest.raises(SceneError, match="a transform without area"):
            describe_scene([write(tmp_path / "f.tif", transform=Affine(a, b, 5e5, d, -1, 5e6))], None)
    with pytest.raises(SceneError, match="rotated or sheared"):
        describe_scene([write(tmp_path / "d.tif", transform=NORTH_UP * Affine.rotation(5))], None)
    points = [GroundControlPoint(r, c, 10 + c / 100, 50 - r / 100) for r in (0, 20) for c in (0, 30)]
    path = write(tmp_path / "e.tif", crs=None, transform=None)
    with rasterio.open(path, "r+") as dataset:
        dataset.gcps = (points, "EPSG:4326")
    with pytest.raises(SceneError, match="4 ground control points only"):
        describe_scene([path], None)


def test_complex_pixels_are_refused(tmp_path):
    with pytest.raises(SceneError, match="complex numbers"):
        describe_scene([write(tmp_path / "a.tif", count=1, dtype="complex64")], None)


def test_a_type_that_the_card_does_not_take_is_refused(tmp_path):
    path = write(tmp_path / "a.tif", dtype="uint16")
    with pytest.raises(SceneError, match=r"are uint16; model 'probe' needs uint8"):
        describe_scene([path], card(), bands=["1", "2", "3"])


@pytest.mark.parametrize(
    ("other", "finer"),
    [
        ({"shape": (21, 30)}, False),
        ({"transform": NORTH_UP * Affine.translation(1, 0)}, False),
        ({"transform": NORTH_UP * Affine.scale(2.5), "shape": (9, 13)}, False),
        ({"transform": NORTH_UP * Affine.scale(0.5), "shape": (40, 60)}, True),
    ],
)
def test_bands_on_another_grid_are_warped_onto_the_finest(tmp_path, other, finer):
    red = write(tmp_path / "x_red.tif", count=1)
    green = write(tmp_path / "x_green.tif", count=1, **other)
    scene = describe_scene([red, green], card(("red", "green")))
    assert scene.shape == ((40, 60) if finer else (20, 30))
    assert scene.warps == ("x_red.tif (bilinear)" if finer else "x_green.tif (bilinear)",)
    assert scene.identity != describe_scene([red, green], card(("red", "green")), laying=CUBIC).identity


def test_a_band_of_another_place_is_refused(tmp_path):
    red = write(tmp_path / "x_red.tif", count=1)
    green = write(tmp_path / "x_green.tif", count=1, crs="EPSG:32633")
    with pytest.raises(SceneError, match=r"x_green.tif lies on .*which is elsewhere than .*one place"):
        describe_scene([red, green], card(("red", "green")))


def test_a_group_that_does_not_nest_is_warped_as_its_card_says(tmp_path):
    fine = write(tmp_path / "x_red.tif", count=1)
    shifted = NORTH_UP * Affine.scale(2) * Affine.translation(0.5, 0)
    coarse = write(tmp_path / "x_green.tif", count=1, shape=(10, 15), transform=shifted)
    more = BandGroup(name="slow", bands=("green",), ratio=2, dtypes=("uint8",), kernel="nearest")
    scene = describe_scene([fine, coarse], card(("red",), more=(more,)))
    slow = scene.groups[1]
    assert slow.shape == (10, 15) and slow.grid.transform == NORTH_UP * Affine.scale(2)
    assert scene.warps == ("x_green.tif (nearest)",)
    asked = describe_scene([fine, coarse], card(("red",), more=(more,)), laying=CUBIC)
    assert asked.warps == ("x_green.tif (cubic)",)


def test_gsd_outside_the_card_is_refused_and_can_be_resampled(tmp_path):
    path = write(tmp_path / "a.tif", photometric="rgb")
    needs = card(gsd=(2, 5), native=2.5)
    with pytest.raises(SceneError, match=r"needs 2 to 5 m; --resample reads it at 2.5 m"):
        describe_scene([path], needs)
    scene = describe_scene([path], needs, resample=True)
    assert scene.resampling == "average"
    assert scene.gsd == pytest.approx(2.5)
    assert scene.shape == (8, 12)
    assert describe_scene([path], card(gsd=(0.1, 0.6), native=0.5), resample=True).resampling == "bilinear"
    assert describe_scene([path], card(gsd=(0.3, 1)), resample=True).resampling is None


def test_oblong_pixels_are_refused_where_the_card_has_limits(tmp_path):
    path = write(tmp_path / "a.tif", photometric="rgb", transform=NORTH_UP * Affine.scale(1, 1.5))
    with pytest.raises(SceneError, match="needs square ones"):
        describe_scene([path], card(gsd=(0.5, 2)))
    describe_scene([path], card())


def test_fits_tells_why_not(tmp_path):
    files = describe_files([write(tmp_path / "a.tif", photometric="rgb")])
    assert fits(card(), files) is None
    assert "nothing answers to nir" in str(fits(card((*RGB, "nir")), files))
    assert assemble_scene(files, card()).shape == (20, 30)


# The ground


def test_ground_size_is_measured_on_the_ellipsoid():
    grid = GeoBox((100, 100), Affine(1, 0, 1_000_000, 0, -1, 8_399_737), "EPSG:3857")  # latitude 60
    assert ground_sample_distance(grid) == pytest.approx(0.5, rel=0.01)
    degrees = GeoBox((100, 100), Affine(1e-5, 0, 9, 0, -1e-5, 60), "EPSG:4326")
    high, wide = pixel_ground_size(degrees)
    assert high == pytest.approx(1.114, rel=0.002)
    assert wide == pytest.approx(0.558, rel=0.002)
    feet = GeoBox((100, 100), Affine(1, 0, 6_000_000, 0, -1, 2_000_000), "EPSG:2229")
    assert ground_sample_distance(feet) == pytest.approx(0.3048, rel=0.001)


def test_a_local_grid_is_measured_by_its_unit():
    local = 'LOCAL_CS["site",UNIT["foot",0.3048]]'
    assert ground_sample_distance(GeoBox((10, 10), Affine(2, 0, 0, 0, -2, 0), local)) == pytest.approx(0.6096)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 7))
def test_grids_nest_exactly_where_the_coarse_one_covers_the_fine_one(rows, cols, ratio):
    fine = GeoBox((rows, cols), NORTH_UP, UTM)
    shape = (math.ceil(rows / ratio), math.ceil(cols / ratio))
    coarse = GeoBox(shape, NORTH_UP * Affine.scale(ratio), UTM)
    assert nested_ratio(fine, coarse) == ratio
    assert same_grid(fine, coarse) == (ratio == 1)
    assert nested_ratio(fine, GeoBox((shape[0] + 1, shape[1]), coarse.transform, UTM)) is None


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 300), st.floats(0.05, 30))
def test_resampled_grid_covers_the_old_one(side, gsd):
    grid = GeoBox((side, side), NORTH_UP, UTM)
    new = resampled_grid(grid, gsd)
    pixel = pixel_ground_size(grid)[0]
    # But for a sliver of a new pixel, for which the grid does not grow by a row that holds nothing.
    assert (new.shape[0] + 0.02) * gsd >= side * pixel * (1 - 1e-4)
    assert (new.shape[0] - 1) * gsd < side * pixel
    assert new.transform.c == grid.transform.c


# Real files

DATA = os.environ.get("CITYCOVER_DATA")
real = pytest.mark.skipif(not DATA, reason="CITYCOVER_DATA names no folder of real imagery")


@real
def test_every_real_file_is_described_or_refused_with_a_message():
    """Rasters are described but for those that are located otherwise than by a grid; all else is refused."""
    files = [
        path
        for folder in ("vhr", "robust", "s2", "pairs", "multisensor")
        for path in sorted((Path(DATA) / folder).rglob("*"))
        if path.is_file()
    ]
    assert len(files) > 90
    refused = []
    for path in files:
        try:
            scene = describe_scene([path], None)
        except SceneError as error:
            refused.append((path.name, str(error)))
        else:
            assert scene.gsd > 0
    assert all("; " in message for _, message in refused)
    no_rasters = ("cannot be opened as a raster", "is a vector file")
    rasters = {name for name, message in refused if not any(said in message for said in no_rasters)}
    assert rasters == {
        "IMG_0459.jpg", "dop20c_32587_5922.tif", "geomatrix.tif", "iw-vv.tiff", "rotated.tif",
        "sample_fp_mask.tif", "sar_hh.tif", "test_rpcs.tif",
    }  # fmt: skip


@real
@pytest.mark.parametrize(
    ("pattern", "bands", "expected"),
    [
        ("vhr/naip_nd_series/m_*2012*.tif", None, [1, 2, 3, 4]),
        ("vhr/naip_small/m_321*.tif", None, [1, 2, 3, 4]),
        ("pairs/spacenet_vegas_bands/*.tif", None, ["R", "G", "B", "N"]),
        ("pairs/zion_landsat_nlcd/landsat_b*.tif", None, ["4", "3", "2", "5"]),
        ("multisensor/clsa/LC8*_B[2-5].TIF", None, ["4", "3", "2", "5"]),
        ("s2/s2_safe_29UNU/*_B*_60m.jp2", None, ["B04_60m", "B03_60m", "B02_60m", "B8A_60m"]),
        ("s2/bigearthnet_patch/*_B*.tif", None, ["B04", "B03", "B02", "B08"]),
        ("pairs/sen1floods11_spain/*S2Hand.tif", None, [4, 3, 2, 8]),
        ("multisensor/overlap/*AnalyticMS.tif", None, [3, 2, 1, 4]),
        ("robust/nodata/all-nodata.tif", None, [3, 2, 1, 4]),
        ("vhr/naip_va/*.tiff", ["1", "2", "3", "4"], ["b1", "b2", "b3", "b4"]),
    ],
)
def test_real_four_band_scenes_are_put_in_order(pattern, bands, expected):
    needs = card(
        (("red", "B04"), ("green", "B03"), ("blue", "B02"), ("nir", "B08", "B8A")),
        ("uint8", "uint16", "int16"),
    )
    scene = describe_scene(sorted(Path(DATA).glob(pattern)), needs, bands=bands)
    for band, wanted in zip(scene.groups[0].bands, expected, strict=True):
        if isinstance(wanted, int):
            assert band.index == wanted
        else:
            assert Path(band.path).stem.endswith(wanted)


@real
def test_naip_dates_one_pixel_apart_and_unordered_files_are_refused():
    four = card((*RGB, "nir"))
    with pytest.raises(SceneError, match=r"say which is which.* 1 NAIP-VA-b1.tiff"):
        describe_scene(sorted((Path(DATA) / "vhr/naip_va").glob("*.tiff")), four)
    with pytest.raises(SceneError, match=r"--overlap"):
        describe_scene(sorted((Path(DATA) / "vhr/naip_nd_series").glob("m_*.tif")), four)


@pytest.mark.parametrize(
    "name", ["a\nb.tif", "a\x1b[31m.tif", b"caf\xe9.tif".decode("utf8", "surrogateescape")]
)
def test_names_that_cannot_be_written_down_are_refused_at_once(tmp_path, name):
    path = write(tmp_path / "a.tif", photometric="rgb").rename(tmp_path / name)
    with pytest.raises(SceneError, match="rename it"):
        describe_scene([path], card())


def test_a_folder_whose_name_is_not_utf8_is_refused_at_once(tmp_path):
    folder = tmp_path / b"caf\xe9".decode("utf8", "surrogateescape")
    folder.mkdir()
    path = write(tmp_path / "a.tif", photometric="rgb").rename(folder / "a.tif")
    with pytest.raises(SceneError, match="not UTF-8"):
        describe_scene([path], card())


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", range(6))
def test_a_transform_that_is_no_number_is_refused(tmp_path, number, place):
    numbers = [1, 0, 500_000, 0, -1, 5_000_000]
    numbers[place] = number
    path = write(tmp_path / "a.tif", photometric="rgb", transform=Affine(*numbers))
    with pytest.raises(SceneError, match="transform"):
        describe_scene([path], card())


def test_a_palette_image_is_called_one(tmp_path):
    path = write(tmp_path / "a.tif", count=1, photometric="palette")
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {1: (10, 20, 30, 255)})
    with pytest.raises(SceneError, match="-expand rgb"):
        describe_scene([path], card())
    assert describe_scene([path], None).groups
