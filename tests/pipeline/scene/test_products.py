"""Products by name, archives and scene files: which files are bands, and what their numbers mean."""

import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from rasters import write

from citycover.errors import SceneError
from citycover.geometry.window import Window
from citycover.model.card import ModelCard
from citycover.read.raster import RasterReader
from citycover.scene.assemble import describe_scene
from citycover.scene.file import describe_files
from citycover.scene.find import rasters_of
from citycover.scene.laying import Laying
from citycover.scene.masking import Masking
from citycover.scene.scene import Scene
from citycover.scene.trust import Trust

TRUST = Trust()

PRODUCT = "S2B_MSIL2A_20221005T115219_N0400_R023_T29UNU_20221005T140000.SAFE"


def card(*bands: str) -> ModelCard:
    """A network of reflectance x 10000."""
    return ModelCard.model_validate(
        {
            "name": "reflectance",
            "trim": 0,
            "feather": 0,
            "window": {"size": 64},
            "groups": [
                {
                    "bands": list(bands),
                    "dtypes": ["uint16", "float32"],
                    "unit": "reflectance",
                    "unit_scale": 0.0001,
                }
            ],
            "legend": {
                "name": "two",
                "classes": [{"id": k, "name": f"c{k}", "color": "#00000" + str(k)} for k in (1, 2)],
            },
        }
    )


def band(path: Path, value: int, gsd: int, driver: str = "JP2OpenJPEG") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    side = 240 // gsd
    values = np.full((1, side, side), value, np.uint8 if "SCL" in path.name else np.uint16)
    if "SCL" in path.name:
        values[0, 0, 0] = 9
    more = {"QUALITY": "100", "REVERSIBLE": "YES"} if driver == "JP2OpenJPEG" else {}
    write(path, values, driver=driver, transform=Affine(gsd, 0, 5e5, 0, -gsd, 5.8e6), **more)


def safe(folder: Path, *, offset: bool = True, extra: str = "") -> Path:
    """A small Sentinel-2 L2A product: bands at 10 and 20 m, with the offset of baseline 04.00."""
    place = folder / PRODUCT
    images = place / "GRANULE" / "L2A_T29UNU_A029" / "IMG_DATA"
    for name, gsd in (
        ("B02", 10),
        ("B03", 10),
        ("B04", 10),
        ("B02", 20),
        ("B8A", 20),
        ("SCL", 20),
        ("SCL", 60),
    ):
        value = 4 if name == "SCL" else 1500
        band(images / f"R{gsd}m" / f"T29UNU_20221005T115219_{name}_{gsd}m.jp2", value, gsd)
    band(place / "GRANULE" / "L2A_T29UNU_A029" / "QI_DATA" / "MSK_CLDPRB_20m.jp2", 50, 20)
    offsets = (
        "".join(f'<BOA_ADD_OFFSET band_id="{k}">-1000</BOA_ADD_OFFSET>' for k in range(13)) if offset else ""
    )
    (place / "MTD_MSIL2A.xml").write_text(
        f'<?xml version="1.0"?>{extra}<n1:Level-2A_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int">'
        "<PRODUCT_START_TIME>2022-10-05T11:52:19.024Z</PRODUCT_START_TIME>"
        f"<BOA_QUANTIFICATION_VALUE unit='none'>10000</BOA_QUANTIFICATION_VALUE>{offsets}"
        "</n1:Level-2A_User_Product>"
    )
    return place


def packed(place: Path, kind: str) -> Path:
    """A folder as an archive of that folder."""
    path = place.parent / f"{place.name}.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(place.rglob("*")):
                archive.write(file, f"{place.name}/{file.relative_to(place)}")
    else:
        with tarfile.open(path, "w") as tar:
            for file in sorted(place.iterdir()):
                tar.add(file, file.name)
    shutil.rmtree(place)
    return path


def pixels(scene: Scene) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    reader = RasterReader(scene.groups[0])
    values = np.zeros((*reader.shape, reader.bands), reader.dtype)
    valid = np.zeros(reader.shape, np.bool_)
    assert reader.read_into(Window(0, 0, *reader.shape), values, valid) == ()
    reader.close()
    return values, valid


@pytest.mark.parametrize("kind", ["folder", "zip", "metadata below"])
def test_sentinel2_is_read_as_its_metadata_say(tmp_path: Path, kind: str) -> None:
    place = safe(tmp_path / "in")
    given = {"folder": place, "metadata below": place.parent}.get(kind) or packed(place, kind)
    names = [Path(one.path).name for one in rasters_of([given], TRUST)]
    assert names == [
        f"T29UNU_20221005T115219_{name}.jp2"
        for name in ("B02_10m", "B03_10m", "B04_10m", "B8A_20m", "SCL_20m")
    ]
    scene = describe_scene([given], card("red", "green", "blue"), masking=Masking(("scl",)))
    assert scene.time == "2022-10-05T11:52:19.024Z" and scene.gsd == pytest.approx(10, rel=0.01)
    values, valid = pixels(scene)
    assert not valid[:2, :2].any() and valid.sum() == 24 * 24 - 4
    assert (values[valid] == 500).all()  # 1500 of the files, less 1000
    assert scene.conversions[0] == "red: 1 x -1000"


def test_a_product_may_be_named_by_its_metadata(tmp_path: Path) -> None:
    place = safe(tmp_path / "in")
    assert rasters_of([place / "MTD_MSIL2A.xml"], TRUST) == rasters_of([place], TRUST)
    other = landsat(tmp_path, LANDSAT.replace("193024", "193025"))
    for file in landsat(tmp_path).iterdir():
        shutil.move(file, other / file.name)  # products that lie in one folder
    found = [Path(one.path).name for one in rasters_of([other / f"{LANDSAT}_MTL.txt"], TRUST)]
    assert len(found) == 5 and all(name.startswith(LANDSAT) for name in found)


def test_of_two_products_with_files_of_the_same_names_each_has_its_own_mask(tmp_path: Path) -> None:
    places = [safe(tmp_path / name) for name in ("one", "two")]
    scene = describe_scene(places, card("red"), laying=Laying(overlap="first"), masking=Masking(("scl",)))
    for sheet, place in zip(scene.groups[0].sheets, places, strict=True):
        for source in (sheet.bands[0], sheet.masks[0].source):
            assert Path(source.path).is_relative_to(place)


def test_before_the_offset_numbers_are_as_they_were_and_0_is_nodata(tmp_path: Path) -> None:
    place = safe(tmp_path, offset=False)
    first = next(place.rglob("*B04_10m.jp2"))
    band(first, 0, 10)
    scene = describe_scene([place], card("red"))
    assert not pixels(scene)[1].any() and not scene.conversions


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda p: shutil.rmtree(p / "GRANULE"), "no images below GRANULE"),
        (lambda p: (p / "MTD_MSIL2A.xml").write_text("<a>"), "is no whole XML"),
        (lambda p: of_band(p / "MTD_MSIL2A.xml", "-1"), "does not say what numbers mean"),
        (lambda p: of_band(p / "MTD_MSIL2A.xml", "13"), "does not say what numbers mean"),
        (lambda p: (p / "MTD_MSIL2A.xml").write_text("<a><B>1</B></a>"), "does not say what numbers mean"),
        (
            lambda p: (p / "MTD_MSIL2A.xml").write_text('<!DOCTYPE a [<!ENTITY b "c">]><a/>'),
            "declares XML entities",
        ),
    ],
)
def test_damaged_sentinel2(tmp_path: Path, spoil: Any, said: str) -> None:
    place = safe(tmp_path)
    spoil(place)
    with pytest.raises(SceneError, match=said):
        describe_files([place])


def of_band(metadata: Path, number: str) -> None:
    """The offset of the first band is said of another one."""
    metadata.write_text(metadata.read_text().replace('band_id="0"', f'band_id="{number}"'))


@pytest.mark.parametrize("beside", ["archives alone", "a product", "a raster"])
def test_a_folder_of_archives_is_what_they_hold(tmp_path: Path, beside: str) -> None:
    packed(landsat(tmp_path), "tar")
    packed(safe(tmp_path), "zip")
    (tmp_path / "order.txt").write_text("thank you")
    if beside == "a raster":
        alone = write(tmp_path / "a.tif", np.ones((1, 4, 4), np.uint8))
        assert [given.path for given in rasters_of([tmp_path], TRUST)] == [alone]
        return
    if beside == "a product":
        landsat(tmp_path, "LC09_L1TP_193024_20230715_20230717_02_T1")
    found = [str(given.path) for given in rasters_of([tmp_path], TRUST)]
    kinds = [sum(part in path for path in found) for part in ("/vsitar/", "/vsizip/", "_L1TP_")]
    assert kinds == [5, 5, 5 if beside == "a product" else 0]
    assert describe_files([tmp_path])


LANDSAT = "LC09_L2SP_193024_20230615_20230617_02_T1"


def landsat(folder: Path, scene: str = LANDSAT) -> Path:
    place = folder / scene
    middle = "SR_" if "_L2" in scene else ""
    for number in (2, 3, 4, 5):
        band(place / f"{scene}_{middle}B{number}.TIF", 20000, 30, "GTiff")
    band(place / f"{scene}_QA_PIXEL.TIF", 1 << 3, 30, "GTiff")
    for other in ("ST_B10", "SR_QA_AEROSOL", "QA_RADSAT", "B10"):
        band(place / f"{scene}_{other}.TIF", 1, 30, "GTiff")
    lines = "".join(
        f"    REFLECTANCE_MULT_BAND_{k} = 2.0000E-05\n    REFLECTANCE_ADD_BAND_{k} = -0.100000\n"
        for k in (2, 3, 4, 5)
    )
    (place / f"{scene}_MTL.txt").write_text(
        "GROUP = LANDSAT_METADATA_FILE\n    DATE_ACQUIRED = 2023-06-15\n"
        f'    SCENE_CENTER_TIME = "10:08:37.6160450Z"\n    SUN_ELEVATION = 30.0\n{lines}END\n'
    )
    return place


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_landsat_level_2(tmp_path: Path, kind: str) -> None:
    place = landsat(tmp_path)
    given = place if kind == "folder" else packed(place, kind)
    scene = describe_scene([given], card("red", "nir"))
    assert scene.time == "2023-06-15T10:08:37Z"
    values, valid = pixels(scene)
    assert valid.all() and values == pytest.approx(10000 * (0.0000275 * 20000 - 0.2), abs=0.01)
    cloudy = describe_scene([given], card("red", "nir"), masking=Masking(("qa_pixel",)))
    assert not pixels(cloudy)[1].any()
    if kind == "tar":
        assert str(given) in [path for path, _, _ in scene.fingerprints]  # another archive is another scene


def test_landsat_level_1_is_reflectance_by_the_height_of_the_sun(tmp_path: Path) -> None:
    scene = describe_scene([landsat(tmp_path, "LC09_L1TP_193024_20230615_20230617_02_T1")], card("red"))
    assert pixels(scene)[0] == pytest.approx(10000 * (2e-5 * 20000 - 0.1) / 0.5, abs=0.01)


def test_an_archive_of_plain_rasters(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for name in ("a/red.tif", "a/green.tif", "a/more/blue.tif"):
        band(folder / name, 7, 10, "GTiff")
    path = packed(folder, "zip")
    assert [Path(one.path).name for one in rasters_of([path], TRUST)] == ["green.tif", "red.tif"]
    assert pixels(describe_scene([path], None))[1].all()
    for damage, said in ((b"PK\x03\x04 no zip", "no whole archive"), (b"", "no whole archive")):
        path.write_bytes(damage)
        with pytest.raises(SceneError, match=said):
            describe_files([path])
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "x")
    with pytest.raises(SceneError, match="holds no raster file"):
        describe_files([path])


def test_what_an_archive_holds_may_not_be_a_service(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "a.tif",
            "<GDAL_WMS><Service name='TMS'><ServerUrl>http://127.0.0.1:1/${z}</ServerUrl></Service></GDAL_WMS>",
        )
    with pytest.raises(SceneError, match="cannot be opened as a raster"):
        describe_files([path])


def stated(folder: Path, text: str) -> Path:
    path = folder / "scene.toml"
    path.write_text(text)
    return path


def test_a_scene_file_says_what_rasters_do_not(tmp_path: Path) -> None:
    for col in range(2):
        values = np.full((2, 8, 8), 3000, np.uint16)
        values[:, 0, 0] = 65535
        write(tmp_path / f"x_{col}.tif", values, transform=Affine(10, 0, 5e5 + 80 * col, 0, -10, 5.8e6))
    path = stated(
        tmp_path,
        '[[files]]\npath = "x_*.tif"\nbands = ["nir", "red"]\ntime = 2024-05-31T10:00:00Z\nnodata = 65535\n'
        'scale = 0.0001\noffset = -0.1\nunit = "reflectance"\n',
    )
    scene = describe_scene([path], card("red", "nir"))
    assert scene.time == "2024-05-31T10:00:00Z" and scene.shape == (8, 16)
    assert [b.index for b in scene.groups[0].bands] == [2, 1]
    values, valid = pixels(scene)
    assert valid.sum() == 126 and values[valid] == pytest.approx(2000, abs=0.01)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "files: is missing"),
        ("nodata = 0\n[[files]]\npath = 'x.tif'", "nodata: is no key here, known are files"),
        ("[[files]]\npath = 'x.tif'\nband = ['red']", "band: .*known are path, bands"),
        ("[[files]]\npath = 'y_*.tif'", "no file matches y_"),
        ("[[files]]\npath = 'x.tif'\nscale = 0", "must not be 0"),
        ("[[files]]\npath = 'x.tif'\ntime = 'May'", "should be a time such as"),
        (
            "[[files]]\npath = 'x.tif'\nbands = ['red', 'nir']",
            r"has 1 bands, and .*scene.toml names 2: red, nir",
        ),
        ("[[files]]\npath = '../x.tif'", "outside its own folder"),
        ("[[files]]\npath = 'https://example.org/x.tif'", "give --allow-remote"),
        ("[[files]]\npath = 'x.tif'\nnodata = 70000", "pixels are uint16 and cannot be that"),
        ("[[files]", "is not TOML"),
    ],
)
def test_scene_files_that_are_none(tmp_path: Path, text: str, said: str) -> None:
    band(tmp_path / "x.tif", 1, 10, "GTiff")
    with pytest.raises(SceneError, match=said):
        describe_files([stated(tmp_path, text)])


def test_an_archive_packed_from_within_its_folder(tmp_path: Path) -> None:
    folder = landsat(tmp_path / "product")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(folder, ".")  # members are ./...
    inside = describe_files([tmp_path / "x.tar"])
    assert [info.name for info in inside] == [info.name for info in describe_files([folder])]
    assert {info.time for info in inside} == {info.time for info in describe_files([folder])}


def test_damaged_archives_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("LC09_MTL.txt", "".join(f"x{k} = {k * k}\n" for k in range(3000)))
    content = path.read_bytes()
    path.write_bytes(content[:100] + bytes(byte ^ 90 for byte in content[100:160]) + content[160:])
    with pytest.raises(SceneError, match=r"LC09_MTL.txt in .* cannot be read"):
        describe_files([path])
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ä.tif", "x")
    path.write_bytes(path.read_bytes().replace("ä".encode(), b"\xff\xfe"))
    with pytest.raises(SceneError, match="is no whole archive"):
        describe_files([path])


OFFSET = """<a><QUANTIFICATION_VALUE>10000</QUANTIFICATION_VALUE>
<BOA_ADD_OFFSET band_id="3">nan</BOA_ADD_OFFSET></a>"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('<?xml version="1.0" encoding="nobody"?><a/>', "is no whole XML"),
        ('<?xml version="1.0" encoding="utf-7"?><a/>', "is no whole XML"),
        (OFFSET, "does not say what numbers mean"),
        ("<a><QUANTIFICATION_VALUE>inf</QUANTIFICATION_VALUE></a>", "does not say what numbers mean"),
        (
            "<a><BOA_QUANTIFICATION_VALUE>nan</BOA_QUANTIFICATION_VALUE></a>",
            "does not say what numbers mean",
        ),
    ],
)
def test_metadata_that_say_nothing(tmp_path: Path, text: str, said: str) -> None:
    folder = safe(tmp_path)
    (folder / "MTD_MSIL2A.xml").write_text(text)
    with pytest.raises(SceneError, match=said):
        describe_files([folder])


def test_rasters_of_a_folder_come_before_products_in_it(tmp_path: Path) -> None:
    landsat(tmp_path / "raw")
    band(tmp_path / "ortho.tif", 1, 10, "GTiff")
    assert [info.name for info in describe_files([tmp_path])] == ["ortho.tif"]


def test_a_scene_file_in_a_folder_of_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "sheets[1]"
    for name in ("x_1.tif", "x[2].tif"):
        band(folder / name, 1, 10, "GTiff")
    (info,) = describe_files(
        [stated(folder, "[[files]]\npath = 'x_*.tif'\ntime = 2024-05-31T01:30:00+02:00")]
    )
    assert info.name == "x_1.tif" and info.time == "2024-05-30T23:30:00Z"
    (info,) = describe_files([stated(folder, "[[files]]\npath = 'x[2].tif'")])
    assert info.name == "x[2].tif"


def test_a_scale_of_1_and_a_unit_in_a_scene_file_count(tmp_path: Path) -> None:
    write(
        tmp_path / "x.tif", np.full((1, 8, 8), 0.25, np.float32), transform=Affine(10, 0, 5e5, 0, -10, 5.8e6)
    )
    path = stated(tmp_path, "[[files]]\npath = 'x.tif'\nbands = ['red']\nunit = 'reflectance'")
    values, _ = pixels(describe_scene([path], card("red")))
    assert values == pytest.approx(2500)
    stated(tmp_path, "[[files]]\npath = 'x.tif'\nbands = ['red']\nunit = 'dB'")
    with pytest.raises(SceneError, match="are dB, the model needs reflectance"):
        describe_scene([path], card("red"))
