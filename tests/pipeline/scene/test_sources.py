"""What a mosaic has lost, and what it may not name."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from rasters import mosaic, read_rows, write

from citycover.errors import SceneError
from citycover.geometry.window import Window
from citycover.scene import sources
from citycover.scene.assemble import describe_scene
from citycover.scene.file import describe_files, lost_sources
from citycover.scene.trust import Trust
from citycover.scene.vrt import read_sources

TILE = 32
PLACE = Window(64, 32, TILE, TILE)  # tile 9 of 4 x 4


def tile(
    path: Path, side: int = TILE, dtype: str = "uint8", col: int = 1, row: int = 2, crs: int = 32633
) -> None:
    transform = (1.0, 0.0, 5e5 + col * TILE, 0.0, -1.0, 5.8e6 - row * TILE)

    write(path, np.full((1, side, side), 10, dtype), transform=Affine(*transform), crs=f"EPSG:{crs}")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(b"x" * 5000),
    "cut in its header": lambda path: path.write_bytes(path.read_bytes()[:6]),
    "of another size": lambda path: tile(path, side=16),
    "of another type": lambda path: tile(path, dtype="uint16"),
    "from another place": lambda path: tile(path, col=3),
    "in another CRS": lambda path: tile(path, crs=32634),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a broken link": lambda path: (path.unlink(), path.symlink_to("nowhere.tif")),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
}


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("what", DAMAGES)
def test_a_lost_source_is_a_hole_of_its_own_place(tmp_path: Path, what: str, threads: int) -> None:
    vrt = mosaic(tmp_path, 4)
    right, _, _ = read_rows(vrt, 1)
    DAMAGES[what](tmp_path / "9.tif")
    values, valid, holes = read_rows(vrt, threads, rows=50)
    lost = np.zeros(valid.shape, np.bool_)
    lost[PLACE.slices] = True
    np.testing.assert_array_equal(valid, ~lost)
    np.testing.assert_array_equal(values[valid], right[valid])
    assert {hole.path for hole in holes} == {str(tmp_path / "9.tif")}
    assert sum(hole.window.pixels for hole in holes) == PLACE.pixels
    said = lost_sources(describe_files([vrt]))
    assert said is not None and "1 of 16" in said and str(tmp_path / "9.tif") in said


@pytest.mark.parametrize("threads", [1, 4])
def test_a_source_lost_after_it_was_described_is_a_hole_too(tmp_path: Path, threads: int) -> None:
    from citycover.read.raster import RasterReader

    vrt = mosaic(tmp_path, 4)
    scene = describe_scene([vrt], None)
    (tmp_path / "9.tif").unlink()
    reader = RasterReader(scene.groups[0], threads=threads)
    values, valid = np.zeros((128, 128, 1), np.uint8), np.zeros((128, 128), np.bool_)
    for _ in range(2):  # GDAL forgets that it failed
        holes = reader.read_into(Window(0, 0, 128, 128), values, valid)
        assert holes and not valid[PLACE.slices].any() and (values[valid] > 0).all()
    reader.close()


def test_losses_of_a_mosaic_inside_a_mosaic_are_carried_to_its_place(tmp_path: Path) -> None:
    mosaic(tmp_path, 4)
    outer = tmp_path / "outer.vrt"
    outer.write_text(
        '<VRTDataset rasterXSize="200" rasterYSize="150"><SRS>EPSG:32633</SRS>'
        "<GeoTransform>499980,1,0,5800010,0,-1</GeoTransform>"
        '<VRTRasterBand dataType="Byte" band="1"><NoDataValue>0</NoDataValue><SimpleSource>'
        '<SourceFilename relativeToVRT="1">mosaic.vrt</SourceFilename><SourceBand>1</SourceBand>'
        '<SrcRect xOff="0" yOff="0" xSize="128" ySize="128"/>'
        '<DstRect xOff="20" yOff="10" xSize="128" ySize="128"/></SimpleSource></VRTRasterBand></VRTDataset>'
    )
    (tmp_path / "9.tif").unlink()
    (band,) = describe_scene([outer], None).groups[0].bands
    assert [loss.window for loss in band.losses] == [PLACE.shift(10, 20)]
    _, valid, holes = read_rows(outer, 2)
    assert valid.sum() == 128 * 128 - TILE * TILE and holes


def test_each_text_is_read_once_however_deep_and_often_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = mosaic(tmp_path, 2)
    outer = tmp_path / "outer.vrt"
    band = (
        '<VRTRasterBand dataType="Byte" band="{}"><SimpleSource>'
        '<SourceFilename relativeToVRT="1">mosaic.vrt</SourceFilename></SimpleSource></VRTRasterBand>'
    )
    outer.write_text(
        f'<VRTDataset rasterXSize="64" rasterYSize="64">{band.format(1)}{band.format(2)}</VRTDataset>'
    )
    tiles = [tmp_path / f"{k}.tif" for k in range(4)]
    tiles[1].unlink()
    read: list[str] = []
    monkeypatch.setattr(sources, "read_sources", lambda path: read.append(path) or read_sources(path))
    (info,) = describe_files([outer])
    assert sorted(read) == sorted(map(str, (outer, inner, *tiles)))
    assert [path for path, _, _ in info.beside] == [*map(str, (inner, *tiles))]
    assert [(band, loss.path) for band, loss in info.losses] == [(1, str(tiles[1])), (2, str(tiles[1]))]


def test_every_source_is_part_of_the_identity(tmp_path: Path) -> None:
    vrt = mosaic(tmp_path, 4)
    before = describe_scene([vrt], None)
    assert len(before.fingerprints) == 17
    os.utime(tmp_path / "5.tif", ns=(1, 1))
    touched = describe_scene([vrt], None)
    (tmp_path / "5.tif").unlink()
    gone = describe_scene([vrt], None)
    assert len({before.identity, touched.identity, gone.identity}) == 3


def test_a_mosaic_of_which_nothing_is_left_is_refused(tmp_path: Path) -> None:
    vrt = mosaic(tmp_path, 2)
    for path in tmp_path.glob("*.tif"):
        path.unlink()
    with pytest.raises(SceneError, match="none of its 4 sources"):
        describe_scene([vrt], None)


def naming(folder: Path, source: str, kind: str = "SimpleSource", relative: int = 0) -> Path:
    """A VRT that names one file."""
    folder.mkdir(exist_ok=True)
    vrt = folder / "naming.vrt"
    if kind == "raw":
        band = (
            '<VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand">'
            f'<SourceFilename relativetoVRT="{relative}">{source}</SourceFilename>'
            "<ImageOffset>0</ImageOffset><PixelOffset>1</PixelOffset>"
            "<LineOffset>32</LineOffset></VRTRasterBand>"
        )
    elif kind == "warped":
        vrt.write_text(
            '<VRTDataset rasterXSize="32" rasterYSize="32" subClass="VRTWarpedDataset"><GDALWarpOptions>'
            f'<SourceDataset relativeToVRT="{relative}">{source}</SourceDataset>'
            "</GDALWarpOptions></VRTDataset>"
        )
        return vrt
    else:
        name = kind if kind != "upper" else "SIMPLESOURCE"
        tag = "SourceFilename" if kind != "upper" else "SOURCEFILENAME"
        band = (
            f'<VRTRasterBand dataType="Byte" band="1"><{name}>'
            f'<{tag} relativeToVRT="{relative}">{source}</{tag}>'
            f"<SourceBand>1</SourceBand></{name}></VRTRasterBand>"
        )
    vrt.write_text(
        '<VRTDataset rasterXSize="32" rasterYSize="32"><SRS>EPSG:32633</SRS>'
        f"<GeoTransform>500000,1,0,5800000,0,-1</GeoTransform>{band}</VRTDataset>"
    )
    return vrt


@pytest.mark.parametrize("kind", ["SimpleSource", "ComplexSource", "upper", "warped", "raw"])
def test_a_file_may_not_name_files_outside_its_folder(tmp_path: Path, kind: str) -> None:
    tile(tmp_path / "secret.tif")
    for source, relative in ((str(tmp_path / "secret.tif"), 0), ("../secret.tif", 1)):
        vrt = naming(tmp_path / "given", source, kind, relative)
        with pytest.raises(SceneError, match="--allow-path"):
            describe_files([vrt])
    if kind not in {"warped", "raw"}:
        (info,) = describe_files([vrt], Trust(folders=(tmp_path,)))
        assert info.shape == (32, 32) and not info.losses


def test_raw_bytes_are_refused_even_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(bytes(1024))
    with pytest.raises(SceneError, match=r"raw bytes.*--allow-path"):
        describe_files([naming(tmp_path, "bytes", "raw", 1)])
    describe_files([tmp_path / "naming.vrt"], Trust(folders=(tmp_path,)))


@pytest.mark.parametrize(
    "source", ["/vsicurl/http://127.0.0.1:9/x.tif", "http://127.0.0.1:9/x.tif", "/vsis3/bucket/x.tif"]
)
def test_a_file_may_not_reach_across_the_network(tmp_path: Path, source: str) -> None:
    with pytest.raises(SceneError, match="--allow-remote"):
        describe_files([naming(tmp_path, source)])


@pytest.mark.parametrize(
    "source", ["&lt;VRTDataset/&gt;", "WMS:http", "MEM:::DATAPOINTER=1,PIXELS=4", "/vsistdin/"]
)
def test_sources_that_are_no_files_are_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(SceneError):
        describe_files([naming(tmp_path, source)])


def test_a_link_of_the_user_leads_wherever_it_leads(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    mosaic(elsewhere, 2)
    city = tmp_path / "city"
    city.mkdir()
    (city / "linked.vrt").symlink_to(elsewhere / "mosaic.vrt")
    assert read_rows(city / "linked.vrt", 1)[1].all()
    (city / "tiles").symlink_to(elsewhere)
    assert not describe_files([naming(city, "tiles/0.tif", relative=1)])[0].losses


def test_a_mosaic_inside_a_mosaic_is_bound_by_what_the_user_named(tmp_path: Path) -> None:
    tile(tmp_path / "secret.tif")
    naming(tmp_path / "given", str(tmp_path / "secret.tif")).rename(tmp_path / "given" / "inner.vrt")
    with pytest.raises(SceneError, match="--allow-path"):
        describe_files([naming(tmp_path / "given", "inner.vrt", relative=1)])


def test_circles_and_entities_are_refused(tmp_path: Path) -> None:
    vrt = naming(tmp_path, "naming.vrt", relative=1)
    with pytest.raises(SceneError):
        describe_files([vrt])
    bomb = tmp_path / "bomb.vrt"
    bomb.write_text('<!DOCTYPE x [<!ENTITY a "aaaa">]>' + vrt.read_text())
    with pytest.raises(SceneError, match="DOCTYPE"):
        describe_files([bomb])


def test_formats_that_fetch_are_refused_unless_allowed(tmp_path: Path) -> None:
    wms = tmp_path / "x.xml"
    wms.write_text(
        '<GDAL_WMS><Service name="TMS"><ServerUrl>http://127.0.0.1:9/${z}/${x}/${y}.png</ServerUrl></Service>'
        "<DataWindow><UpperLeftX>0</UpperLeftX><UpperLeftY>10</UpperLeftY><LowerRightX>10</LowerRightX>"
        "<LowerRightY>0</LowerRightY><TileLevel>1</TileLevel><SizeX>64</SizeX><SizeY>64</SizeY></DataWindow>"
        "<Projection>EPSG:32633</Projection><BandsCount>3</BandsCount></GDAL_WMS>"
    )
    with pytest.raises(SceneError, match="--allow-remote"):
        describe_files([wms])
    assert describe_files([wms], Trust(remote=True))[0].driver == "WMS"


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tif")
    with pytest.raises(SceneError, match="pipe"):
        describe_files([tmp_path / "pipe.tif"])
