"""`citycover sharpen`: from labels and an image to a product, from any kill to the same one."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from labelling import BAD_LABELS, changed
from sharpening import MOMENTS, killed

from citycover.product.open import open_product
from citycover.synth.write import write_city

QUICK = ("--set", "epochs=2", "--set", "chips_per_epoch=8", "--set", "chip=32", "--set", "batch=4",
         "--precision", "fp32", "--threads", 1)  # fmt: skip


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("city")
    write_city(folder, 192, 3)
    return folder


def given(city: Path, out: Path, *more: object) -> list[str]:
    words = [city / "image.tif", "--labels", city / "labels_10m.tif", "--labels-legend", "city", "-o", out]
    return [str(word) for word in (*words, *QUICK, *more)]


def pixels(out: Path) -> np.ndarray:
    with rasterio.open(out / "landcover.tif") as product:
        return product.read(1)


@pytest.fixture(scope="module")
def straight(city: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an undisturbed run leaves."""
    out = tmp_path_factory.mktemp("straight") / "out"
    from citycover_cli.app import main

    with pytest.raises(SystemExit) as end:
        main(["sharpen", *given(city, out), "--quiet"])
    assert end.value.code == 0
    return out


def test_it_leaves_a_product_a_model_a_report_and_a_picture(straight: Path) -> None:
    for name in ("landcover.tif", "item.json", "training/model.pt", "sharpen.png"):
        assert (straight / name).is_file()
    report = json.loads((straight / "sharpen.json").read_text())
    assert report["method"] == "ce" and "plain cross-entropy" in report["why"]
    assert 0 <= report["trust"] <= 1
    held_out = report["held_out"]
    assert held_out["cells"] > 0 and set(held_out["gain"]) == set(report["shares"])
    assert sum(share["labels"] for share in report["shares"].values()) == pytest.approx(1, abs=1e-3)
    assert json.loads((straight / "run.json").read_text())["evidence"] == "with labels"
    assert set(open_product(straight).data_vars) == {"classes", "confidence"}


def test_it_looks_for_change_where_it_is_asked(citycover, city: Path, tmp_path: Path) -> None:
    done = citycover("sharpen", *given(city, tmp_path / "out"), "--change")
    assert done.code == 0, done.err
    assert "changed since" in done.out
    with rasterio.open(tmp_path / "out" / "change.tif") as lost, rasterio.open(city / "image.tif") as image:
        assert lost.shape == image.shape and lost.nodata == 255
    changed_share = json.loads((tmp_path / "out" / "run.json").read_text())["labels"]["changed"]
    assert 0 <= changed_share <= 1


def test_the_same_command_again_finds_it_finished(citycover, city: Path, straight: Path) -> None:
    again = citycover("sharpen", *given(city, straight))
    assert again.code == 5
    assert "finished and identical" in again.err
    skipped = citycover("sharpen", *given(city, straight), "--skip-finished", "--json")
    assert skipped.code == 0 and json.loads(skipped.out)["skipped"]


def test_another_training_or_trust_is_refused_without_overwrite(citycover, city, straight) -> None:
    other = citycover("sharpen", *given(city, straight), "--seed", 1)
    assert other.code == 2 and "differs from this one in: seed; give --overwrite" in other.err
    less = citycover("sharpen", *given(city, straight), "--trust", 0.5)
    assert less.code == 2 and "differs from this one in: labels; give --overwrite" in less.err


def test_overwrite_replaces_it_by_another(citycover, city: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert citycover("sharpen", *given(city, out)).code == 0
    done = citycover("sharpen", *given(city, out), "--trust", 0, "--overwrite", "--json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert said["sharpened"]["trust"] == 0 and said["labels"]["noise_from"] == "asked"
    assert said["model_file"] == str(out / "training" / "model.pt")


@pytest.mark.parametrize(
    "moment",
    [m if m in ("training", "mapping") else pytest.param(m, marks=pytest.mark.slow) for m in MOMENTS],
)
def test_killed_at_any_stage_it_goes_on_to_the_same_map(
    citycover, city: Path, straight: Path, tmp_path: Path, moment: str
) -> None:
    out = tmp_path / "out"
    assert killed(moment, ["sharpen", *given(city, out)]) == -signal.SIGKILL
    assert not (out / "sharpen.json").exists()
    learned = out / "training" / "model.pt"
    assert learned.is_file() == (moment in ("mapping", "publishing", "judging"))
    assert (out / "training" / "checkpoint.pt").is_file() == (moment == "training")
    assert (out / "item.json").is_file() == (moment == "judging")
    before = learned.stat().st_mtime_ns if learned.is_file() else None
    done = citycover("sharpen", *given(city, out))
    assert done.code == 0, done.err
    np.testing.assert_array_equal(pixels(out), pixels(straight))
    assert before in (None, learned.stat().st_mtime_ns), "it learned once more"
    again = citycover("sharpen", *given(city, out), "--skip-finished")
    assert again.code == 0


BAD = BAD_LABELS | {
    "another legend": ({}, ("--labels-legend", "nlcd"), "hold ids that legend 'nlcd' does not have: "),
    "too fine": ({"transform": Affine(0.2, 0, 392_000, 0, -0.2, 5_820_000)}, (), "finer than the pixels"),
    "no such method": ({}, ("--method", "magic"), "--method takes auto, recipe, ce"),
    "a method that does not fit": ({}, ("--method", "plat"), "give one of these by --set method.name"),
    "a table": ({}, ("--labels-legend", "worldcover:wet"), "give the legend alone"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_ends_with_a_message_before_anything_is_written(
    citycover, city: Path, tmp_path: Path, name: str
) -> None:
    changes, more, message = BAD[name]
    labels = changed(city, tmp_path / "labels.tif", **changes)
    legend = () if "--labels-legend" in more else ("--labels-legend", "city")
    out = tmp_path / "out"
    result = citycover("sharpen", city / "image.tif", "--labels", labels, *legend, "-o", out, *QUICK, *more)
    assert result.code == 2, result.err
    assert message in result.err
    assert not out.exists()


def test_labels_and_their_legend_must_be_named(citycover, city: Path, tmp_path: Path) -> None:
    image, out = city / "image.tif", tmp_path / "out"
    assert "give --labels of the place" in citycover("sharpen", image, "-o", out).err
    unnamed = citycover("sharpen", image, "--labels", city / "labels_10m.tif", "-o", out)
    assert unnamed.code == 2 and "refused with the names of those that do" in unnamed.err
    wrong = citycover(
        "sharpen", image, "--labels", city / "labels_10m.tif", "--labels-legend", "nlcd", "-o", out
    )
    assert "legends hold all its ids: " in wrong.err and " city," in wrong.err
    two = citycover("sharpen", image, image, "--labels", city / "labels_10m.tif", "--labels-legend", "city",
                    "-o", out)  # fmt: skip
    assert two.code == 2 and "both answer to 'red'" in two.err


def test_other_content_is_left_alone(citycover, city: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    result = citycover("sharpen", *given(city, tmp_path))
    assert result.code == 2 and "holds other content: notes.txt" in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_sigterm_keeps_what_was_learned_and_says_how_to_go_on(city: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["chips_per_epoch=4000" if word == "chips_per_epoch=8" else word for word in given(city, run)]
    process = subprocess.Popen(
        [sys.executable, "-m", "citycover_cli", "sharpen", *words], stderr=subprocess.PIPE, text=True
    )
    metrics, deadline = run / "training" / "metrics.jsonl", time.monotonic() + 200
    while not metrics.is_file() or not metrics.read_text():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 143, said
    assert "what was learned and mapped is kept" in said and "citycover sharpen" in said
    assert (run / "training" / "checkpoint.pt").is_file()


def test_bands_in_files_of_their_own_are_learned_from_and_sharpened_alike(
    citycover, city, straight, tmp_path
) -> None:
    with rasterio.open(city / "image.tif") as image:
        values, profile, names = image.read(), dict(image.profile), image.descriptions
    parts = []
    for part in ((0, 1), (2, 3)):
        parts.append(tmp_path / f"{part[0]}.tif")
        with rasterio.open(parts[-1], "w", **profile | {"count": 2, "photometric": None}) as file:
            file.write(values[list(part)])
            file.descriptions = [names[k] for k in part]
    words = given(city, tmp_path / "out")
    done = citycover("sharpen", *map(str, parts), *words[1:])
    assert done.code == 0, done.err
    np.testing.assert_array_equal(pixels(tmp_path / "out"), pixels(straight))


def test_clouds_are_neither_learned_nor_mapped(citycover, city: Path, tmp_path: Path) -> None:
    with rasterio.open(city / "image.tif") as image:
        values, profile = image.read(), dict(image.profile)
    numbers = np.full(values.shape[1:], 4, np.uint8)
    numbers[:, 96:] = 9
    cloudy = np.where(numbers == 9, 255, values).astype(values.dtype)
    for name, pixel in (("clear", values), ("cloudy", cloudy)):
        with rasterio.open(tmp_path / f"{name}.tif", "w", **profile) as file:
            file.write(pixel)
    kept = {"count": 1, "dtype": "uint8", "nodata": None, "photometric": None}
    with rasterio.open(tmp_path / "SCL.tif", "w", **profile | kept) as file:
        file.write(numbers, 1)
    for name in ("clear", "cloudy"):
        words = given(city, tmp_path / name)[1:]
        mask = ("--mask", "scl", "--bands", "1,2,3,4")
        done = citycover("sharpen", str(tmp_path / f"{name}.tif"), str(tmp_path / "SCL.tif"), *words, *mask)
        assert done.code == 0, done.err
    clear, cloudy = (pixels(tmp_path / name) for name in ("clear", "cloudy"))
    assert (clear[:, 96:] == 0).all() and (clear[:, :96] > 0).all()
    np.testing.assert_array_equal(clear, cloudy)  # what is under a cloud decides nothing
