"""What a user can get wrong: a clear message, exit code 2, 3 or 4, no traceback, nothing lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import torch
from affine import Affine
from conftest import write_scene

from citycover.errors import MachineError


def expect(result, code: int, *words: str) -> None:
    assert result.code == code, result.err
    for word in words:
        assert word in result.err
    assert result.err.startswith("citycover: error: ")


def test_a_missing_file(citycover, tmp_path: Path) -> None:
    expect(citycover("map", tmp_path / "no.tif", "-o", tmp_path / "out"), 2, "no.tif", "no such file")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"this is no raster", b"II*\x00"])
def test_not_a_raster(citycover, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.tif").write_bytes(content)
    expect(citycover("map", tmp_path / "x.tif", "-o", tmp_path / "out"), 2, "x.tif")


def test_no_crs(citycover, tmp_path: Path) -> None:
    expect(citycover("map", write_scene(tmp_path / "x.tif", crs=None), "-o", tmp_path / "out"), 2, "CRS")


def test_rotated(citycover, tmp_path: Path) -> None:
    turned = Affine.translation(5e5, 5.8e6) * Affine.rotation(20) * Affine.scale(1, -1)
    scene = write_scene(tmp_path / "x.tif", transform=turned)
    expect(citycover("map", scene, "-o", tmp_path / "out"), 2, "rotated", "gdalwarp")


def test_missing_bands(citycover, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "x.tif", bands=3)
    expect(citycover("map", scene, "-o", tmp_path / "out", "--model", "spectral-rgbn"), 2, "nir")


def test_bands_in_doubt(citycover, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "x.tif", descriptions=("w", "x", "y", "z"), photometric="minisblack")
    expect(citycover("map", scene, "-o", tmp_path / "out"), 2, "say which is which", "1 w of x.tif")
    assert citycover("map", scene, "-o", tmp_path / "out", "--bands", "1,2,3,4").code == 0


def test_bands_that_are_not_there(citycover, scene: Path, tmp_path: Path) -> None:
    expect(citycover("map", scene, "-o", tmp_path / "out", "--bands", "1,2,3,9"), 2, "9")


def test_wrong_dtype(citycover, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "x.tif", dtype="uint16")
    expect(citycover("map", scene, "-o", tmp_path / "out", "--model", "spectral-rgbn"), 2, "uint16", "uint8")


def test_complex_data(citycover, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "x.tif", dtype="complex64")
    expect(citycover("map", scene, "-o", tmp_path / "out", "--model", "spectral-rgbn"), 2, "complex")


def test_gsd_outside_the_tolerance(citycover, scene: Path, tmp_path: Path) -> None:
    model = model_with(tmp_path, gsd=(8.0, 12.0), native_gsd=10.0)
    expect(citycover("map", scene, "-o", tmp_path / "out", "--model", model), 2, "--resample", "12")
    assert citycover("map", scene, "-o", tmp_path / "out", "--model", model, "--resample").code == 0
    with rasterio.open(tmp_path / "out" / "landcover.tif") as product:
        assert product.res == pytest.approx((10, 10), rel=0.01)


def model_with(folder: Path, **changes: object) -> Path:
    """The built-in network under a changed card."""
    from citycover.model.archive import read_model_file
    from citycover.model.builtin import builtin_path
    from citycover.model.network import load_torchscript, write_torchscript

    built = read_model_file(builtin_path("spectral-rgbn"))
    path = folder / "changed.pt"
    write_torchscript(load_torchscript(built.path, "cpu"), built.card.model_copy(update=changes), path)
    return path


def test_an_unreadable_model(citycover, scene: Path, tmp_path: Path) -> None:
    (tmp_path / "m.pt").write_bytes(b"not a model")
    expect(citycover("map", scene, "-o", tmp_path / "out", "--model", tmp_path / "m.pt"), 2, "m.pt")
    expect(citycover("map", scene, "-o", tmp_path / "out", "--model", "no-such-model"), 2, "spectral-rgbn")


class NotANumber(torch.nn.Module):
    """NaN where the first band is 255."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        scores = image[:, :1].float().repeat(1, self.channels, 1, 1)
        return scores.masked_fill(scores == 255, float("nan"))


class OneSize(NotANumber):
    """What a trace leaves of a reshape: windows of one size only."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image[:, :1].float().reshape(1, 1, 64, 64).repeat(1, self.channels, 1, 1)


@pytest.mark.parametrize(
    ("network", "told"),
    [
        (NotANumber, "not finite (NaN or infinite) for the window of"),
        (OneSize, "is invalid for input of size"),
    ],
)
def test_a_network_that_fails_in_mapping(citycover, tmp_path: Path, network: type, told: str) -> None:
    from citycover.model.archive import read_model_file
    from citycover.model.builtin import builtin_path
    from citycover.model.network import write_torchscript

    card = read_model_file(builtin_path("spectral-rgbn")).card
    write_torchscript(torch.jit.script(network(len(card.channels))), card, tmp_path / "m.pt")
    values = np.random.default_rng(0).integers(30, 200, (4, 90, 120))
    values[0, 70, 20] = 255
    scene = write_scene(tmp_path / "x.tif", values=values)
    expect(citycover("map", scene, "-o", tmp_path / "out", "--model", tmp_path / "m.pt"), 2, told)
    assert not (tmp_path / "out" / "item.json").exists()


def test_a_card_that_contradicts_the_network(citycover, scene: Path, tmp_path: Path) -> None:
    from citycover.model.builtin import read_builtins

    legend = read_builtins()[0].card.legend
    fewer = legend.model_copy(update={"classes": legend.classes[:3], "remap": {}})
    model = model_with(tmp_path, legend=fewer, channels=(1, 2, 3))
    expect(citycover("map", scene, "-o", tmp_path / "out", "--model", model), 2, "promises")


def test_windows_that_do_not_fit_the_model(citycover, scene: Path, tmp_path: Path) -> None:
    expect(citycover("map", scene, "-o", tmp_path / "out", "--window", 8), 2, "--window")
    model = model_with(tmp_path, stride=4, trim=8, feather=8)
    expect(
        citycover("map", scene, "-o", tmp_path / "out", "--model", model, "--trim", 7), 2, "nearest that fits"
    )


def test_a_folder_with_other_content(citycover, scene: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.docx").write_text("precious")
    expect(citycover("map", scene, "-o", tmp_path / "out"), 2, "thesis.docx")
    expect(citycover("map", scene, "-o", tmp_path / "out", "--overwrite"), 2, "thesis.docx")
    assert (tmp_path / "out" / "thesis.docx").read_text() == "precious"


@pytest.mark.parametrize(
    ("option", "value", "word"),
    [
        ("--bbox", "1,2,3", "west,south,east,north"),
        ("--bbox", "a,b,c,d", "numbers"),
        ("--bbox", "0,0,1,1", "does not overlap"),
        ("--precision", "fp8", "fp32"),
        ("--compress", "lzw", "deflate"),
        ("--aoi", "missing.geojson", "does not exist"),
        ("--threads", "100000", "this machine takes 1 to"),
        ("--workers", "100000", "this machine takes 1 to"),
        ("--memory", "inf", "--memory takes GiB"),
        ("--scheduler", "http://x", "--scheduler takes the address"),
    ],
)
def test_options_that_make_no_sense(
    citycover, scene: Path, tmp_path: Path, option: str, value: str, word: str
) -> None:
    expect(citycover("map", scene, "-o", tmp_path / "out", option, value), 2, word)


def test_a_device_that_is_not_there(citycover, scene: Path, tmp_path: Path) -> None:
    expect(citycover("map", scene, "-o", tmp_path / "out", "--device", "cuda:7"), 4, "--device cpu")


def test_a_truncated_file_is_mapped_with_holes(citycover, tmp_path: Path) -> None:
    whole = tmp_path / "whole.tif"
    plain = write_scene(tmp_path / "plain.tif", (600, 600))
    rasterio.shutil.copy(plain, whole, driver="COG", blocksize=128, compress="deflate", overviews="none")
    data = whole.read_bytes()
    cut = tmp_path / "cut.tif"
    cut.write_bytes(data[: int(len(data) * 0.6)])
    result = citycover("map", cut, "-o", tmp_path / "out")
    assert result.code == 3, result.err
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["holes"] and all(h["path"] == str(cut) for h in run["holes"])
    drawn = json.loads((tmp_path / "out" / "holes.geojson").read_text())
    assert 1 <= len(drawn["features"]) <= len(run["holes"])
    assert citycover("map", whole, "-o", tmp_path / "twin").code == 0
    with (
        rasterio.open(tmp_path / "out/landcover.tif") as product,
        rasterio.open(tmp_path / "twin/landcover.tif") as twin,
    ):
        classes, wanted = product.read(1), twin.read(1)
    lost = np.zeros(classes.shape, np.bool_)
    for hole in run["holes"]:
        lost[hole["row"] : hole["row"] + hole["height"], hole["col"] : hole["col"] + hole["width"]] = True
    np.testing.assert_array_equal(classes == 0, lost)
    far = ~lost
    for shift in range(-12, 13):
        for axis in (0, 1):
            far &= ~np.roll(lost, shift, axis)
    assert (classes == wanted)[far].mean() > 0.999


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(citycover, scene: Path, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    expect(citycover("map", scene, "-o", tmp_path / "locked" / "out"), 4, "permission")


def test_no_space_left(citycover, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from citycover.store.store import WorkingStore

    def full(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(WorkingStore, "write_block", full)
    expect(citycover("map", scene, "-o", tmp_path / "out"), 4, "no space left")
    assert issubclass(MachineError, Exception)


def test_too_little_memory_allowed(citycover, scene: Path, tmp_path: Path) -> None:
    expect(citycover("map", scene, "-o", tmp_path / "out", "--memory", "0.1"), 4, "--memory")


def test_wrong_usage_is_exit_code_2(citycover) -> None:
    assert citycover("map").code == 2
    assert citycover("no-such-verb").code == 2
    assert citycover("map", "x.tif", "-o", "y", "--windwo", "3").code == 2


def test_an_untagged_collar_is_pointed_out(citycover, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(20, 200, (4, 90, 120))
    values[:, :, :30] = 0
    scene = write_scene(tmp_path / "x.tif", values=values)
    for verb in (("plan", scene), ("map", scene, "-o", tmp_path / "out")):
        result = citycover(*verb)
        assert result.code == 0 and "about 25% of the scene is 0" in result.err and "--nodata 0" in result.err
    assert "--nodata" not in citycover("plan", scene, "--nodata", "0").err


def test_a_collar_of_a_large_file_is_seen_in_a_few_blocks(citycover, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(20, 200, (4, 3100, 3000))
    values[:, -400:] = 0
    tiled = {"tiled": True, "blockxsize": 512, "blockysize": 512}
    scene = write_scene(tmp_path / "x.tif", (3100, 3000), values=values, **tiled)
    assert "about 17% of the scene is 0" in citycover("plan", scene).err, (
        "13% of it, as 30 of 3,100 rows tell"
    )


KILL = """
import os, signal, sys
from citycover.compute import sink
write = sink.StoreSink.write
def dying(self, finished):
    write(self, finished)
    if len(self.store.finished()) == 2:
        os.kill(os.getpid(), int(sys.argv.pop()))
sink.StoreSink.write = dying
from citycover.plan import fit
fit.MAX_BLOCK_HEIGHT = fit.MAX_BLOCK_WIDTH = 512
from citycover_cli.app import main
main(sys.argv[1:-1] if sys.argv[-1].isdigit() else sys.argv[1:])
"""


def test_a_log_file_in_the_product(citycover, scene: Path, tmp_path: Path) -> None:
    result = citycover("map", scene, "-o", tmp_path / "out", "--log-file", tmp_path / "out" / "run.log")
    expect(result, 2, "--log-file", "beside")
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_is_the_users_own(citycover, scene: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    expect(citycover("map", scene, "-o", tmp_path / "out", "--device", "cuda:7"), 4, "--device cpu")
    assert (tmp_path / "out").is_dir()


def test_bands_of_which_some_have_overviews(citycover, tmp_path: Path) -> None:
    files = [
        write_scene(tmp_path / f"{name}.tif", (2100, 2100), bands=1, descriptions=(name,))
        for name in ("red", "green", "blue", "nir")
    ]
    with rasterio.open(files[1], "r+") as dataset:
        dataset.build_overviews([2])
    assert (
        citycover("map", *files, "-o", tmp_path / "out", "--bbox", "500000,5799900,500100,5800000").code == 0
    )


@pytest.mark.parametrize("number", [9, 2, 15])
def test_a_run_that_was_stopped_goes_on_to_the_same_pixels(citycover, tmp_path: Path, number: int) -> None:
    scene = write_scene(tmp_path / "x.tif", (1100, 1300))
    out = tmp_path / "out"
    command = [sys.executable, "-c", KILL, "map", str(scene), "-o", str(out), "--window", "256"]
    died = subprocess.run([*command, str(number)], capture_output=True, text=True, timeout=120, check=False)
    assert died.returncode == (-9 if number == 9 else 128 + number), died.stderr
    if number != 9:
        assert "run the same command again" in died.stderr
    assert not (out / "item.json").exists()
    other = citycover("map", scene, "-o", out, "--window", 128)
    expect(other, 2, "plan", "--restart")
    other = citycover("map", scene, "-o", out, "--model", "spectral-rgb")
    expect(other, 2, "differs from this one in: model", "--restart")
    again = subprocess.run(
        [sys.executable, "-c", KILL.replace("== 2", "== 99"), *command[3:], "-v", "0"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert "going on" in again.stderr
    assert citycover("map", scene, "-o", tmp_path / "straight", "--window", 256).code == 0
    for name in ("landcover.tif", "confidence.tif"):
        with rasterio.open(out / name) as one, rasterio.open(tmp_path / "straight" / name) as two:
            np.testing.assert_array_equal(one.read(), two.read())


def test_of_several_models_that_do_not_fit_the_nearest_says_why(
    citycover, scene: Path, tmp_path: Path
) -> None:
    named = citycover("map", scene, "--bands", "red,green,blu", "-o", tmp_path / "out")
    expect(named, 2, "spectral-rgb comes nearest", "--bands blu: no band of the scene answers to it")
    assert named.err.count("--bands") == 1
    lacking = write_scene(tmp_path / "s2.tif", bands=3, descriptions=("B02", "B03", "B04"), dtype="uint16")
    expect(
        citycover("map", lacking, "-o", tmp_path / "out"),
        2,
        "spectral-s2 comes nearest",
        "nothing answers to B08",
    )
    clouds = write_scene(tmp_path / "s2_SCL.tif", bands=1, descriptions=("SCL",))
    masked = citycover("map", lacking, clouds, "-o", tmp_path / "out")
    expect(masked, 2, "spectral-s2 comes nearest", "nothing answers to B08")
