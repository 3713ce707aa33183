"""Several dates of a place through the command line: composed before the network, or averaged after it."""

from __future__ import annotations

import json
import multiprocessing
import signal
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
from conftest import write_scene
from killing import map_until

OPTIONS = ("--model", "spectral-rgbn", "--device", "cpu", "--window", "64", "--precision", "fp32")

DAYS = ("2024-07-12", "2024-05-31", "2024-04-02")


def write_dates(folder: Path, shape: tuple[int, int] = (90, 120), masks: bool = True) -> list[Path]:
    """Three dates, each with clouds of its own that a mask knows; the numbers of the latest are odd, ..."""
    rng, files = np.random.default_rng(5), []
    smooth = rng.integers(30, 180, (4, shape[0] // 8 + 1, shape[1] // 8 + 1))
    ground = smooth.repeat(8, 1).repeat(8, 2)[:, : shape[0], : shape[1]]
    for number, day in enumerate(DAYS):
        values = ground + rng.integers(0, 60, ground.shape)
        name = f"a_{day.replace('-', '')}"
        files.append(write_scene(folder / f"{name}.tif", shape, values=values))
        if masks:
            clouds = np.full((1, *shape), 4)
            clouds[0, 10 * number : 30 + 10 * number, 20 * number : 60] = 9
            mask = write_scene(folder / f"{name}_SCL.tif", shape, 1, values=clouds, descriptions=("SCL",))
            files.append(mask)
    return files


def numbers(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read()


def layers(folder: Path) -> list[np.ndarray]:
    return [numbers(folder / f"{name}.tif")[0] for name in ("landcover", "confidence")]


def by_numpy(kind: str, files: list[Path]) -> np.ndarray:
    """(band, y, x) composite of whole rasters, 0 where all dates are hidden."""
    stack = np.stack([numbers(f).astype(float) for f in files if "SCL" not in f.name])
    hidden = np.stack([numbers(f)[0] == 9 for f in files if "SCL" in f.name])
    clear = np.ma.MaskedArray(stack, np.broadcast_to(hidden[:, None], stack.shape))
    middle = np.ma.median(clear, axis=0)
    if kind == "median":
        return np.rint(middle).filled(0)
    far = ((clear - middle) ** 2).sum(1).filled(np.inf)
    chosen = far.argmin(0) if kind == "best" else (~hidden).argmax(0)
    return np.where(hidden.all(0), 0, np.take_along_axis(stack, chosen[None, None], axis=0)[0])


@pytest.mark.parametrize("kind", ["latest", "median", "best"])
def test_a_composite_maps_as_the_raster_that_numpy_makes(citycover, tmp_path: Path, kind: str) -> None:
    files = write_dates(tmp_path)
    made = write_scene(tmp_path / "made.tif", values=by_numpy(kind, files), nodata=0)
    done = citycover("map", made, "-o", tmp_path / "whole", *OPTIONS)
    assert done.code == 0, done.err
    asked = ("--composite", kind, "--mask", "scl")
    for name, words in (("dates", ()), ("far", ("--workers", "2"))):
        if name == "far" and kind != "best":
            continue
        done = citycover("map", *files[::-1], *asked, "-o", tmp_path / name, *OPTIONS, *words)
        assert done.code == 0, done.err
        for one, other in zip(layers(tmp_path / name), layers(tmp_path / "whole"), strict=True):
            np.testing.assert_array_equal(one, other)
    run = json.loads((tmp_path / "dates" / "run.json").read_text())
    assert (run["composite"], tuple(run["dates"])) == (kind, DAYS)
    assert (run["start"], run["time"]) == (DAYS[-1], DAYS[0])
    item = pystac.Item.from_file(tmp_path / "dates" / "item.json")
    assert item.properties["start_datetime"] == "2024-04-02T00:00:00Z"
    assert item.properties["end_datetime"] == item.properties["datetime"] == "2024-07-12T00:00:00Z"
    assert f"of {kind} of {', '.join(DAYS)}" in item.properties["processing:lineage"]
    assert f"{kind} of 3 dates, 2024-04-02 to 2024-07-12" in (tmp_path / "dates/report.html").read_text()
    told = citycover("inspect", tmp_path / "dates")
    assert told.code == 0 and f"{kind} of 2024-07-12" in told.out, told.out
    assert citycover("map", *files, *asked, "-o", tmp_path / "dates", *OPTIONS).code == 5
    other = citycover("map", *files, "--composite", "mean-probability", "-o", tmp_path / "dates", *OPTIONS)
    assert other.code == 2 and "another" in other.err, other.err


def test_probabilities_of_dates_are_averaged_where_they_are_valid(citycover, tmp_path: Path) -> None:
    files = write_dates(tmp_path)
    probabilities, clear = [], []
    for image, mask in zip(files[::2], files[1::2], strict=True):
        out = tmp_path / image.stem
        words = ("--mask", "scl", "--probabilities")
        assert citycover("map", image, mask, *words, "-o", out, *OPTIONS).code == 0
        probabilities.append(numbers(out / "probabilities.tif") / 255)
        clear.append(numbers(mask)[0] != 9)
    weights = np.stack(clear)[:, None]
    count = weights.sum(0)
    assert set(np.unique(count)) >= {1, 2, 3}
    mean = (np.stack(probabilities) * weights).sum(0) / np.maximum(count, 1)
    asked = ("--composite", "mean-probability", "--mask", "scl", "--probabilities", "--verify-seams")
    for name, words in (("here", ()), ("there", ("--workers", "2"))):
        done = citycover("map", *files, *asked, "-o", tmp_path / name, *OPTIONS, *words)
        assert done.code == 0, done.err
    for name in ("landcover", "confidence", "probabilities"):
        one, other = (numbers(tmp_path / where / f"{name}.tif") for where in ("here", "there"))
        np.testing.assert_array_equal(one, other)
    found = numbers(tmp_path / "here" / "probabilities.tif")
    valid = count[0] > 0
    assert ((found[0] != 255) == valid).all()
    assert np.abs(found / 255 - mean)[:, valid].max() < 5 / 255  # each is less than 3 from the exact number
    run = json.loads((tmp_path / "here" / "run.json").read_text())
    assert run["composite"] == "mean-probability" and run["seams"]["pixels"] > 0


def test_a_hole_of_one_date_is_told_of_and_the_other_dates_are_mapped_there(
    citycover, tmp_path: Path
) -> None:
    new, old, _ = write_dates(tmp_path, masks=False)
    write_scene(new, values=numbers(new), compress="deflate", blockysize=16)
    with rasterio.open(new) as file:
        at = int(file.get_tag_item("BLOCK_OFFSET_0_2", "TIFF", bidx=1))
    data = bytearray(new.read_bytes())
    data[at : at + 8] = b"\0" * 8
    new.write_bytes(data)
    asked = ("--composite", "mean-probability", *OPTIONS)
    assert citycover("map", new, old, *asked, "-o", tmp_path / "both").code == 3
    assert citycover("map", old, *OPTIONS, "-o", tmp_path / "old").code == 0
    holes = json.loads((tmp_path / "both" / "holes.geojson").read_text())["features"]
    assert len(holes) == 1 and new.name in json.dumps(holes)
    both, alone = (layers(tmp_path / name)[0] for name in ("both", "old"))
    np.testing.assert_array_equal(both[32:48], alone[32:48])
    assert (both[:32] != alone[:32]).any()


def test_a_plan_tells_of_dates_and_what_they_cost(citycover, tmp_path: Path) -> None:
    files = write_dates(tmp_path, masks=False)
    facts = {}
    for kind in ("median", "mean-probability"):
        done = citycover("plan", *files, "--composite", kind, *OPTIONS, "--no-probe", "--json")
        assert done.code == 0, done.err
        facts[kind] = json.loads(done.out)
        assert (facts[kind]["composite"], tuple(facts[kind]["dates"])) == (kind, DAYS)
    alone = json.loads(citycover("plan", files[0], *OPTIONS, "--no-probe", "--json").out)
    assert alone["dates"] == [] and alone["composite"] is None
    assert {fact["read_bytes"] for fact in facts.values()} == {3 * alone["read_bytes"]}
    memory = [f["engine_memory_bytes"] for f in (alone, facts["median"], facts["mean-probability"])]
    assert memory[0] < memory[1] < memory[2]
    told = citycover("plan", *files, "--composite", "best", *OPTIONS, "--no-probe")
    assert "best of 2024-07-12, 2024-05-31, 2024-04-02" in told.out, told.out


@pytest.mark.parametrize("kind", ["best", "mean-probability"])
def test_a_killed_run_of_dates_goes_on_to_the_same_pixels(tmp_path: Path, kind: str) -> None:
    files = write_dates(tmp_path, (600, 700))
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["citycover.run.map"])

    def run(write: int | None, out: Path) -> int | None:
        words = [*map(str, files), "--composite", kind, "--mask", "scl", "-o", str(out), "--threads", "1"]
        process = processes.Process(target=map_until, args=(write, [*words, *OPTIONS[:4], "--window", "256"]))
        process.start()
        process.join()
        return process.exitcode

    assert run(None, tmp_path / "straight") == 0
    assert run(90, tmp_path / "killed") == -signal.SIGKILL
    finished = list((tmp_path / "killed" / ".work" / "ledger").glob("[0-9]*.json"))
    assert 0 < len(finished) < 4
    assert run(None, tmp_path / "killed") == 0
    for one, other in zip(layers(tmp_path / "killed"), layers(tmp_path / "straight"), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_part_of_dates_is_the_part_of_their_map(citycover, tmp_path: Path) -> None:
    files = write_dates(tmp_path)
    words = ("--composite", "median", "--mask", "scl", *OPTIONS)
    assert citycover("map", *files, "-o", tmp_path / "all", *words).code == 0
    part = ("--bbox", "500020,5799930,500080,5799980")
    assert citycover("map", *files, *part, "-o", tmp_path / "part", *words).code == 0
    inside = layers(tmp_path / "part")[0]
    np.testing.assert_array_equal(inside, layers(tmp_path / "all")[0][20:70, 20:80])


def test_words_that_no_dates_can_be_composed_by_end_with_2(citycover, tmp_path: Path) -> None:
    files = write_dates(tmp_path, masks=False)
    undated = write_scene(tmp_path / "undated.tif")
    height = write_scene(tmp_path / "height.tif", bands=1, descriptions=("height",))
    for given, words, said in (
        (files, ("--composite", "newest"), "--composite takes latest, median, best, mean-probability"),
        ([*files, undated], ("--composite", "latest"), "nothing says when undated.tif was taken"),
        ([*files, height], ("--composite", "best"), "nothing says when height.tif was taken; write it into"),
        (files, (), "--composite"),
    ):
        done = citycover("map", *given, *words, "-o", tmp_path / "out", *OPTIONS)
        assert done.code == 2 and said in done.err, done.err
        assert not (tmp_path / "out").exists()
    alone = citycover("map", files[0], "--composite", "median", "-o", tmp_path / "one", *OPTIONS)
    assert alone.code == 0
    assert json.loads((tmp_path / "one" / "run.json").read_text())["composite"] is None
