from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.warp import transform
from rasters import write

from citycover.errors import ConfigError, SceneError
from citycover.scene.assemble import describe_scene
from citycover.scene.file import describe_files
from citycover.scene.masking import KNOWN, Masking, known_mask
from citycover.scene.masks import unused_masks

FINE = Affine(10, 0, 5e5, 0, -10, 5.8e6)
COARSE = Affine(20, 0, 5e5, 0, -20, 5.8e6)


def image(path: Path, transform: Affine = FINE) -> Path:
    return write(path, np.full((3, 20, 30), 7, np.uint8), transform=transform, photometric="rgb")


def mask(path: Path, transform: Affine = COARSE, shape: tuple[int, int] = (10, 15), **more: object) -> Path:
    return write(path, np.zeros((1, *shape), more.pop("dtype", np.uint8)), transform=transform, **more)


@pytest.mark.parametrize(
    ("text", "values", "bits"),
    [
        ("SCL", (0, 1, 3, 8, 9, 10), ()),
        ("scl=3,8-10", (3, 8, 9, 10), ()),
        ("x.tif= 4 , 4", (4,), ()),
        ("qa_pixel", (), (0, 1, 2, 3, 4)),
        ("qa=bits:0,2-3", (), (0, 2, 3)),
    ],
)
def test_rules(text: str, values: tuple[int, ...], bits: tuple[int, ...]) -> None:
    (rule,) = Masking((text,)).parsed
    assert (rule.values, rule.bits) == (values, bits)


@pytest.mark.parametrize(
    ("rules", "grow", "said"),
    [
        (("clouds",), 0, "known are scl, qa_pixel, fmask, udm2, udm"),
        (("scl=",), 0, "is no number from 0 to 4294967296"),
        (("scl=8-3",), 0, "'8-3' is no number"),
        (("scl=-3",), 0, "'-3' is no number"),
        (("scl=0-4000000000",), 0, "is no number"),
        (("qa=bits:32",), 0, "is no number from 0 to 31"),
        (("=3",), 0, "names no band or file"),
        (("scl",), -1, "--mask-grow takes metres"),
        (("scl",), float("nan"), "--mask-grow takes metres"),
        ((), 30, "--mask-grow is about --mask"),
    ],
)
def test_rules_that_are_none(rules: tuple[str, ...], grow: float, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Masking(rules, grow)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("T29UNU_20221005T115411_SCL_60m.tif", "scl"),
        ("SCL.tif", "scl"),
        ("LC09_L2SP_193024_20230615_20230617_02_T1_QA_PIXEL.TIF", "qa_pixel"),
        ("HLS.L30.T17SLU.2020209T155956.v2.0.Fmask.tif", "fmask"),
        ("20230101_103000_24_2483_3B_udm2.tif", "udm2"),
        ("20170831_172754_101c_3B_AnalyticMS_DN_udm.tif", "udm"),
        ("muscl.tif", None),
        ("20230101_3B_AnalyticMS_SR.tif", None),
    ],
)
def test_masks_by_the_names_of_products(name: str, kind: str | None) -> None:
    assert known_mask(name) == kind


def test_a_known_mask_is_no_band_and_is_told_of(tmp_path: Path) -> None:
    files = [image(tmp_path / "a.tif"), mask(tmp_path / "a_SCL_20m.tif")]
    scene = describe_scene(files, None)
    assert [band.name for group in scene.groups for band in group.bands] == ["red", "green", "blue"]
    assert not scene.masks and len(scene.fingerprints) == 1
    infos = describe_files(files)
    assert "--mask scl" in (unused_masks(infos, Masking()) or "")
    assert unused_masks(infos, Masking(("scl",))) is None
    assert unused_masks(infos[1:], Masking()) is None  # somebody maps the mask itself


def test_masks_are_part_of_the_scene(tmp_path: Path) -> None:
    files = [image(tmp_path / "a.tif"), mask(tmp_path / "a_SCL_20m.tif")]
    scenes = [
        describe_scene(files, None, masking=Masking(rules, grow))
        for rules, grow in (((), 0.0), (("scl",), 0.0), (("scl",), 40.0), (("scl=3",), 0.0))
    ]
    assert len({scene.identity for scene in scenes}) == 4
    assert scenes[1].masks == ("scl (0, 1, 3, 8, 9, 10)",)
    (grown,) = scenes[2].groups[0].sheets[0].masks
    assert grown.grow == pytest.approx((2, 2), rel=0.01)
    assert len(scenes[1].fingerprints) == 2


def test_a_mask_of_each_sheet_and_the_finest_of_several(tmp_path: Path) -> None:
    files = []
    for number in range(2):
        move = Affine.translation(300 * number, 0)
        files.append(image(tmp_path / f"{number}.tif", move * FINE))
        files.append(mask(tmp_path / f"{number}_SCL_20m.tif", move * COARSE))
        files.append(mask(tmp_path / f"{number}_SCL_60m.tif", move * FINE * Affine.scale(6), (4, 5)))
    (group,) = describe_scene(files, None, masking=Masking(("scl",))).groups
    taken = [Path(mask.source.path).name for sheet in group.sheets for mask in sheet.masks]
    assert taken == ["0_SCL_20m.tif", "1_SCL_20m.tif"]


def test_a_band_of_the_image_may_be_the_mask(tmp_path: Path) -> None:
    stack = write(tmp_path / "stack.tif", np.ones((3, 20, 30), np.uint16), transform=FINE)
    with rasterio.open(stack, "r+") as file:
        file.descriptions = ("B04", "B03", "SCL")
    scene = describe_scene([stack], None, bands=("B04", "B03"), masking=Masking(("scl",)))
    (source,) = scene.groups[0].sheets[0].masks
    assert (source.source.index, scene.masks) == (3, ("scl (0, 1, 3, 8, 9, 10)",))


def test_udm2_has_four_bands_that_count(tmp_path: Path) -> None:
    udm2 = write(tmp_path / "x_3B_udm2.tif", np.zeros((8, 20, 30), np.uint8), transform=FINE)
    scene = describe_scene([image(tmp_path / "x.tif"), udm2], None, masking=Masking(("udm2",)))
    assert [mask.source.index for mask in scene.groups[0].sheets[0].masks] == [3, 5, 6, 8]


def test_a_udm2_that_lost_bands_says_so(tmp_path: Path) -> None:
    udm2 = write(tmp_path / "x_udm2.tif", np.zeros((7, 20, 30), np.uint8), transform=FINE)
    with pytest.raises(SceneError, match=r"x_udm2\.tif has 7 bands, and band 8 is needed"):
        describe_scene([image(tmp_path / "x.tif"), udm2], None, masking=Masking(("udm2",)))


def test_of_a_file_of_several_bands_the_first_is_not_taken_for_the_mask(tmp_path: Path) -> None:
    udm2 = write(tmp_path / "x_3B_udm2.tif", np.zeros((2, 20, 30), np.uint8), transform=FINE)
    with rasterio.open(udm2, "r+") as file:
        file.descriptions = ("clear", "cloud")
    files = [image(tmp_path / "x.tif"), udm2]
    for name in ("udm2", "x_3B_udm2.tif"):
        with pytest.raises(SceneError, match=r"udm2.tif has 2 bands \(clear, cloud\).*--mask BAND=VALUES"):
            describe_scene(files, None, masking=Masking((f"{name}=1",)))
    (group,) = describe_scene(files, None, masking=Masking(("cloud=1",))).groups
    assert [mask.source.index for mask in group.sheets[0].masks] == [2]


@pytest.mark.parametrize(
    ("changes", "rule", "said"),
    [
        ({}, "qa_pixel", "no file or band of the scene is called so; it has .*SCL"),
        ({"transform": Affine.translation(400, 0) * COARSE}, "scl", "does not cover a.tif"),
        ({"crs": "EPSG:32634"}, "scl", "does not cover a.tif .*in that CRS"),
        ({"dtype": np.float32}, "scl", "is float32; a mask has whole numbers"),
        ({}, "scl=300,500", "is uint8, numbers from 0 to 255 of 8 bits; none that would hide"),
        ({}, "scl=bits:8,9", "is uint8, numbers from 0 to 255 of 8 bits; none that would hide"),
    ],
)
def test_masks_that_cannot_be_used(tmp_path: Path, changes: dict[str, object], rule: str, said: str) -> None:
    files = [image(tmp_path / "a.tif"), mask(tmp_path / "a_SCL_20m.tif", **changes)]
    with pytest.raises(SceneError, match=said):
        describe_scene(files, None, masking=Masking((rule,)))


def test_which_of_two_masks_is_meant_is_not_guessed(tmp_path: Path) -> None:
    files = [image(tmp_path / "a.tif"), mask(tmp_path / "b_SCL.tif"), mask(tmp_path / "c_SCL.tif")]
    with pytest.raises(SceneError, match=r"b_SCL.tif and c_SCL.tif both lie on a.tif"):
        describe_scene(files, None, masking=Masking(("scl",)))
    (group,) = describe_scene(files, None, masking=Masking(("c_SCL.tif=3",))).groups
    assert [Path(m.source.path).name for m in group.sheets[0].masks] == ["c_SCL.tif"]
    other = [image(tmp_path / "x_20240101.tif"), mask(tmp_path / "x_20230101_SCL.tif")]
    with pytest.raises(SceneError, match=r"is of 2023-01-01.*give the mask of each date"):
        describe_scene(other, None, masking=Masking(("scl",)))


def test_each_known_mask_has_a_rule() -> None:
    assert all(rule.values or rule.bits for rules in KNOWN.values() for rule in rules)


def test_a_mask_lies_on_the_grid_that_bands_are_warped_onto(tmp_path: Path) -> None:
    ((x,), (y,)) = transform("EPSG:32631", "EPSG:32632", [5e5], [5.8e6])
    far = Affine(20, 0, x - 100, 0, -20, y + 200)
    red = write(tmp_path / "red.tif", np.ones((1, 30, 30), np.uint8), transform=far, crs="EPSG:32632")
    fine = write(tmp_path / "green.tif", np.ones((1, 20, 30), np.uint8), transform=FINE, crs="EPSG:32631")
    of_red = write(tmp_path / "red_scl.tif", np.ones((1, 30, 30), np.uint8), transform=far, crs="EPSG:32632")
    of_fine = write(
        tmp_path / "green_scl.tif", np.ones((1, 10, 15), np.uint8), transform=COARSE, crs="EPSG:32631"
    )
    given = {"bands": ["red", "green"], "masking": Masking(("scl",))}
    scene = describe_scene([red, fine, of_red, of_fine], None, **given)
    assert scene.groups[0].sheets[0].masks[0].source.path == str(of_fine)
    with pytest.raises(SceneError, match=r"does not cover red.tif as it is read, on 30 x 20"):
        describe_scene([red, fine, of_red], None, **given)
