"""Every odd file of the real data: what happens to it, and why. Never a traceback, never a wrong map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

MAPPED, REFUSED, HOLES = 0, 2, 3
RGBN = ("--model", "spectral-rgbn", "--bands", "1,2,3,4")
S2 = ("--model", "spectral-s2", "--bands", "3,2,1,4")
S2_REFLECTANCE = (*S2, "--scale", "0.0001", "--offset", "0")
GREY = ("--model", "GREY", "--bands", "1")

TABLE = [
    ("robust/broken/cogeo.tif", (), MAPPED, "the intact twin, with a mask"),
    ("robust/broken/corrupt.tif", (), HOLES, "damaged tiles become nodata, the rest is mapped"),
    ("robust/crs/23322E759967N_clipped_1m_1of2.tif", (), MAPPED, "northing first: the CRS's matter"),
    ("robust/crs/23322E759967N_clipped_1m_2of2.tif", (), MAPPED, "the same"),
    ("robust/crs/geomatrix.tif", GREY, REFUSED, "sheared transform"),
    ("robust/crs/rotated.tif", GREY, REFUSED, "rotated transform, no CRS"),
    ("robust/crs/world.byte.tif", GREY, MAPPED, "degrees, the whole globe"),
    ("robust/dtype/NAIP-VA-b4_int32.tiff", GREY, MAPPED, "int32 is read as float32"),
    ("robust/dtype/cog_int16.tif", GREY, MAPPED, "int16 with a nodata tag"),
    ("robust/dtype/cog_nodata_nan.tif", GREY, MAPPED, "float32 with NaN"),
    ("robust/dtype/cog_scale.tif", GREY, MAPPED, "scale and offset tags: raw numbers travel"),
    ("robust/dtype/float_raster_with_nodata.tif", GREY, MAPPED, "a 13 x 12 raster of floats"),
    ("robust/dtype/int64.tif", GREY, MAPPED, "int64 is read as float32"),
    ("robust/dtype/int64.tif", (), REFUSED, "one band is not enough for any built-in model"),
    ("robust/gcp/iw-vv.tiff", GREY, REFUSED, "ground control points only"),
    ("robust/gcp/test_rpcs.tif", GREY, REFUSED, "rational polynomials only"),
    ("robust/layout/cog.tif", GREY, MAPPED, "a COG of uint16"),
    ("robust/layout/nocog.tif", GREY, MAPPED, "strips of one row"),
    ("robust/layout/image_external.tif", (), MAPPED, "RGB with alpha"),
    ("robust/nodata/201404_13SED190110_201404_0x1500m_CL_1_mask.tif", (), MAPPED, "internal mask"),
    ("robust/nodata/201404_13SED190110_201404_0x1500m_CL_1_nodata.tif", (), MAPPED, "nodata tag"),
    ("robust/nodata/450_ECW_UTM32-EUREF89.tiny.tif", (), MAPPED, "an untagged white collar: warned of"),
    ("robust/nodata/450_ECW_UTM32-EUREF89.tiny.tif", ("--nodata", "255"), MAPPED, "the collar declared"),
    ("robust/nodata/RGB.byte.tif", (), MAPPED, "nodata 0 collar"),
    ("robust/nodata/all-nodata.tif", S2, MAPPED, "nothing valid: a map of nodata"),
    ("robust/nogeo/IMG_0459.jpg", (), REFUSED, "a photograph without CRS"),
    ("robust/nogeo/dop20c_32587_5922.tif", (), REFUSED, "no CRS"),
    ("multisensor/sn6_rotterdam/ms1.tif", S2, REFUSED, "1 m: numbers of a camera, no reflectance"),
    ("multisensor/sn6_rotterdam/ms1.tif", S2_REFLECTANCE, MAPPED, "float64 is read as float32"),
    ("multisensor/sn6_rotterdam/ms1.tif", (), REFUSED, "four unnamed bands are in doubt"),
    ("multisensor/sn6_rotterdam/sar_hh.tif", GREY, REFUSED, "complex and rotated"),
    ("multisensor/sn6_rotterdam/sar_masked.tif", GREY, MAPPED, "float32 amplitudes"),
    ("multisensor/overlap/20170831_172754_101c_3B_AnalyticMS.tif", S2, REFUSED, "radiance, by its name"),
    ("multisensor/overlap/20170831_172754_101c_3B_AnalyticMS.tif", S2_REFLECTANCE, MAPPED, "uint16, 97 m"),
    ("multisensor/sn6_rotterdam/pan1.tif", GREY, MAPPED, "one band of uint16"),
    ("multisensor/sn6_rotterdam/rgb_unmasked.tif", (), MAPPED, "plain RGB"),
    ("vhr/oam_01m/5b90f92da0d7280005fab355_4310.tif", ("--nodata", "0"), MAPPED, "black collar, no tag"),
    ("vhr/oam_01m/5c15321f63d9810007f8b06f_10_00000.tif", (), MAPPED, "ragged edge, mapped as it is"),
    ("vhr/chilliwack_tiles/2012_30cm_594_5450.tiny.tif", (), MAPPED, "a map sheet of strips"),
    ("vhr/drone/test_tiled.tif", (), MAPPED, "YCbCr JPEG, Dutch grid"),
    ("vhr/chilliwack_tiles/2012_30cm_592_5454.tiny.tif", ("--nodata", "255"), MAPPED, "white fill"),
    ("vhr/naip_va/NAIP-VA-b1.tiff", GREY, MAPPED, "nodata 255 is also a value: the tag is followed"),
    ("vhr/naip_small/m_3211605_ne_11_060_20200415.tif", RGBN, MAPPED, "the alpha band is near infrared"),
    ("vhr/spacenet/RGB-PanSharpen_AOI_2_Vegas_img0.tif", (), MAPPED, "degrees, with alpha"),
    ("vhr/spacenet/sample_fp_mask.tif", GREY, REFUSED, "no CRS"),
    ("vhr/spacenet/sample_geotiff.tif", GREY, MAPPED, "panchromatic uint16"),
    ("vhr/drone/OSBS_029.tif", (), MAPPED, "0.1 m, nodata 255"),
]  # fmt: skip


def test_the_table_has_every_odd_file(real_data: Path) -> None:
    there = {str(f.relative_to(real_data)) for f in (real_data / "robust").rglob("*") if f.is_file()}
    assert there <= {file for file, _, _, _ in TABLE}


def test_four_files_of_one_band_each_are_stacked(citycover, real_data: Path, tmp_path: Path) -> None:
    files = [real_data / f"vhr/naip_va/NAIP-VA-b{k}.tiff" for k in (1, 2, 3, 4)]
    refused = citycover("map", *files, "-o", tmp_path / "out")
    # Numbers alone say nothing of colours: asked for, and no order is proposed that might swap them.
    assert refused.code == 2 and "pass --bands with one name or number" in refused.err
    result = citycover("map", *files, "-o", tmp_path / "named", "--bands", "1,2,3,4")
    assert result.code == 0, result.err


class Grey(torch.nn.Module):
    """Dark or bright: a model for rasters of any one band."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([-x.float(), x.float() - 200], 1)


@pytest.fixture(scope="module")
def grey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from citycover.classes.legend import Legend, LegendClass
    from citycover.model.card import BandGroup, ModelCard, WindowRule
    from citycover.model.network import write_torchscript

    classes = (
        LegendClass(id=1, name="dark", color="#000000"),
        LegendClass(id=2, name="bright", color="#ffffff"),
    )
    card = ModelCard(
        name="grey",
        groups=(BandGroup(bands=("grey",), dtypes=("uint8", "uint16", "int16", "float32")),),
        window=WindowRule(size=512),
        trim=0,
        feather=8,
        legend=Legend(name="grey", nodata=0, classes=classes),
    )
    path = tmp_path_factory.mktemp("model") / "grey.pt"
    write_torchscript(torch.jit.script(Grey()), card, path)
    return path


@pytest.mark.parametrize(
    ("file", "flags", "outcome", "why"), TABLE, ids=[f"{Path(f).name} {' '.join(o)}" for f, o, _, _ in TABLE]
)
def test_odd_files(
    citycover, real_data: Path, grey: Path, tmp_path: Path, file: str, flags: tuple, outcome: int, why: str
) -> None:
    scene = real_data / file
    flags = tuple(str(grey) if flag == "GREY" else flag for flag in flags)
    result = citycover("map", scene, "-o", tmp_path / "out", *flags)
    assert result.code == outcome, f"{why}: {result.err}"
    if outcome == REFUSED:
        assert result.err.startswith("citycover: error: ") and not (tmp_path / "out").exists()
        return
    with rasterio.open(scene) as source, rasterio.open(tmp_path / "out" / "landcover.tif") as product:
        assert (product.crs, product.transform, product.shape) == (source.crs, source.transform, source.shape)
        mapped = product.read(1) != product.nodata
        if outcome == MAPPED:
            wanted = expected_valid(source, flags)
            np.testing.assert_array_equal(mapped, wanted)


def expected_valid(source: rasterio.DatasetReader, flags: tuple[str, ...]) -> np.ndarray:
    """What rasterio says of the chosen bands; `--nodata` replaces it; NaN is never valid."""
    named = flags[flags.index("--bands") + 1].split(",") if "--bands" in flags else ["1", "2", "3"]
    bands = [int(b) for b in named]
    pixels = source.read(bands).astype("float64")
    if "--nodata" in flags:
        return (pixels != float(flags[flags.index("--nodata") + 1])).all(0)
    alpha = source.count in bands and "alpha" in [c.name for c in source.colorinterp]
    masks = [np.full(source.shape, 255, np.uint8)] if alpha else source.read_masks(bands)
    return (np.stack(list(masks)) > 0).all(0) & np.isfinite(pixels).all(0)


def test_damaged_tiles_are_nodata_and_the_others_as_in_the_twin(
    citycover, real_data: Path, tmp_path: Path
) -> None:
    for name in ("cogeo", "corrupt"):
        citycover("map", real_data / f"robust/broken/{name}.tif", "-o", tmp_path / name)
    with (
        rasterio.open(tmp_path / "cogeo/landcover.tif") as a,
        rasterio.open(tmp_path / "corrupt/landcover.tif") as b,
    ):
        whole, damaged = a.read(1), b.read(1)
    assert (damaged == 0).mean() < 1
    far = np.ones(whole.shape, np.bool_)
    lost = (damaged == 0) & (whole != 0)
    for row, col in ((r, c) for r in range(0, 1024, 512) for c in range(0, 1024, 512)):
        if lost[row : row + 512, col : col + 512].any():
            far[max(0, row - 16) : row + 528, max(0, col - 16) : col + 528] = False
    np.testing.assert_array_equal(whole[far], damaged[far])
