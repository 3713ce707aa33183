"""The train verb, from imagery and coarse labels to a map."""

from __future__ import annotations

import inspect
import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import rasterio
import rasterio.shutil

from citycover.synth.write import write_city
from citycover_cli.sources import _BELONG
from citycover_cli.verbs.train import _by_class, run

QUICK = ("--set", "epochs=1", "--set", "chips_per_epoch=16", "--set", "chip=32", "--set", "batch=4")


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("city")
    write_city(folder, 192, 3)
    return folder


def arguments(city: Path, out: Path) -> list[object]:
    return ["train", "--recipe", "l2hnet-light", "--image", city / "image.tif", "--labels",
            city / "labels_10m.tif", "--legend", "city", "-o", out, "--workers", 0]  # fmt: skip


def test_train_then_map(citycover, city: Path, tmp_path: Path) -> None:
    trained = citycover(*arguments(city, tmp_path / "run"), *QUICK, "--json")
    assert trained.code == 0, trained.err
    said = json.loads(trained.out)
    assert said["steps"] == 4 and 0 <= said["validation_miou"] <= 1
    mapped = citycover("map", city / "image.tif", "--model", said["model"], "-o", tmp_path / "product")
    assert mapped.code == 0, mapped.err
    with rasterio.open(tmp_path / "product" / "landcover.tif") as source:
        assert set(source.read(1).ravel().tolist()) <= {1, 2, 3, 4, 5, 6}
    again = citycover(*arguments(city, tmp_path / "run"), *QUICK)
    assert again.code == 2 and "--overwrite" in again.err
    resumed = citycover(*arguments(city, tmp_path / "run"), *QUICK, "--resume", "--json")
    assert resumed.code == 0 and json.loads(resumed.out) == said | {
        "seconds": json.loads(resumed.out)["seconds"]
    }
    told = citycover(*arguments(city, tmp_path / "run"), *QUICK, "--resume").out
    assert "4, finished before" in told and str(tmp_path / "run" / "model.pt") in told.replace("\n", "")
    shown = citycover("models", "show", said["model"])
    assert "recipe l2hnet-light" in shown.out


def map_command(printed: str) -> list[str]:
    """The words of the command that a training prints at its end."""
    (line,) = [line for line in printed.splitlines() if "citycover map" in line]
    return shlex.split(line[line.index("citycover map") :])[1:]


FILES = {"named": ["the image.tif"], "unnamed": ["x.tif"]}
BANDS = ["B04.tif", "B03.tif", "B02.tif", "B08.tif"]


@pytest.mark.parametrize("kind", ["named", "unnamed", "separate", "listed"])
def test_the_command_that_a_training_prints_maps_its_image(
    citycover, city: Path, tmp_path: Path, kind: str
) -> None:
    with rasterio.open(city / "image.tif") as source:
        values, profile = source.read(), source.profile
    names = FILES.get(kind, BANDS)
    for first, name in enumerate(names):
        own = values if len(names) == 1 else values[first : first + 1]
        profile |= {"photometric": "minisblack", "count": len(own)}
        with rasterio.open(tmp_path / name, "w", **profile) as sink:
            sink.write(own)
            if kind == "named":
                sink.descriptions = ("red", "green", "blue", "nir")
    named = ",".join(str(tmp_path / name) for name in names)
    given = [named if a == city / "image.tif" else a for a in arguments(city, tmp_path / "run")]
    if kind == "listed":
        (tmp_path / "list.csv").write_text(
            f"image_fn,label_fn\n{';'.join(names)},{city / 'labels_10m.tif'}\n"
        )
        at = given.index("--image")
        given[at : at + 4] = ["--list", tmp_path / "list.csv"]
    trained = citycover(*given, *QUICK, *(("--bands", "1,2,3") if kind == "unnamed" else ()))
    assert trained.code == 0, trained.err
    printed = trained.out + trained.err
    assert "\n  IoU " in printed, "of each class, beside their mean"
    out = str(tmp_path / "product")
    mapped = citycover(*(out if word == "DIR" else word for word in map_command(printed)))
    assert mapped.code == 0, mapped.err
    assert (tmp_path / "product" / "landcover.tif").is_file()


def test_a_class_that_is_never_right_is_said() -> None:
    said = {"validation_miou": 0.2, "validation_iou/water": 0.0, "validation_iou/tree": 0.4}
    rows = dict(_by_class(said))
    assert rows == {"IoU": "water 0%, tree 40%", "never right": "water: of these no labelled pixel was found"}


@pytest.mark.parametrize("name", ["image.tif", "labels_10m.tif"])
def test_images_and_labels_of_a_training_name_files_only_where_they_may(
    citycover, city: Path, tmp_path: Path, name: str
) -> None:
    mosaic = tmp_path / "in.vrt"
    rasterio.shutil.copy(city / name, mosaic, driver="VRT")
    given = [mosaic if a == city / name else a for a in arguments(city, tmp_path / "run")]
    refused = citycover(*given, *QUICK, "--plan")
    assert refused.code == 2 and "--allow-path" in refused.err, refused.err
    assert citycover(*given, *QUICK, "--plan", "--allow-path", city).code == 0


def test_a_plan_is_printed_and_nothing_written(citycover, city: Path, tmp_path: Path) -> None:
    result = citycover(*arguments(city, tmp_path / "run"), *QUICK, "--plan", "--json")
    plan = json.loads(result.out)
    assert plan["chips_per_epoch"] == 16 and len(plan["first_epoch"]) == 16
    assert sum(plan["label_shares"]) == pytest.approx(1, abs=0.01)
    assert not (tmp_path / "run").exists()


def test_a_plan_with_a_target_says_when_and_how_it_comes_in(citycover, city: Path, tmp_path: Path) -> None:
    with rasterio.open(city / "image.tif") as source:
        pixels, names = source.read()[:, ::2, ::2], source.descriptions
        profile = source.profile | {"width": pixels.shape[2], "height": pixels.shape[1]}
        place = source.transform * source.transform.scale(2)
    with rasterio.open(tmp_path / "b.tif", "w", **(profile | {"transform": place})) as sink:
        sink.write(pixels)
        sink.descriptions = names
    given = [*arguments(city, tmp_path / "run"), *QUICK, "--recipe", "lovecs-light", "--plan"]
    given += ["--target", tmp_path / "b.tif", "--target-labels", city / "truth.tif"]
    plan = json.loads(citycover(*given, "--json").out)["target"]
    assert plan["images"] == [str(tmp_path / "b.tif")] and plan["judged"] == 1
    assert plan["gsd_ratio"] == pytest.approx(2, abs=0.01) and plan["source_enlarged"] == [1]
    assert plan["enlarged"] == [sorted(plan["mapped_enlarged"])[2]] and plan["steps"] == 4
    assert plan["labelled_at_steps"][0] == plan["first_step"] == 2
    said = citycover(*given).out
    for row in (
        "b.tif",
        "1 of 1, by labels",
        "2 times those of the source",
        "after 2 of 4 steps",
        "after 2, ",
    ):
        assert row in said, row


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("--legend", "worldcover", "--to", "base4"), "legends hold all its ids"),
        (("--legend", "atlantis"), "there is no legend"),
        (("--recipe", "atlantis"), "there is no recipe"),
        (("--set", "epoch=1"), "known are"),
        (("--list", "x.csv"), "exactly one of the three"),
        (("--bands", "1,2,9"), "9"),
        (("--agree", "2"), "--agree 2"),
        (("--weights", "nowhere.safetensors"), "no file"),
        (("--device", "abacus"), "--device takes"),
        (
            ("--region", "Finland", "--share", "1"),
            "--region, --share are for BigEarthNet; recipe l2hnet-light",
        ),
        (("--shards", "x", "--test-region", "y"), "--test-region, --shards are for BigEarthNet"),
        (("--layout", "bigearthnet"), "--layout bigearthnet is for BigEarthNet"),
        (("--layout", "folders"), "--layout folders without --folder"),
        (("--target", "x.tif"), "--target is for two domains"),
        (("--recipe", "lovecs-light", "--truth-legend", "base4"), "is for coarse labels of one domain"),
    ],
)
def test_bad_input_is_said_in_one_line(
    citycover, city: Path, tmp_path: Path, change: tuple[str, ...], said: str
) -> None:
    given = arguments(city, tmp_path / "run")
    if change[0] == "--legend":
        given = [a for a in given if a not in {"--legend", "city"}]
    result = citycover(*given, *QUICK, *change)
    assert result.code == 2, result.out + result.err
    assert said in result.err
    assert result.err.strip().splitlines()[-1].startswith("citycover: error:")


def test_every_option_that_names_data_has_its_kind_of_training() -> None:
    """A new option is for all kinds, or stands in the table: else some kind would ignore it."""
    everyone = {"to", "folder", "layout", "out", "recipe", "weights", "seed", "device", "workers", "set_",
                "pt2", "plan", "resume", "overwrite"}  # fmt: skip
    talking = {"as_json", "verbose", "quiet", "log_file", "log_json"}
    names = {p for p in inspect.signature(run).parameters if p != "context"}
    assert names - everyone - talking == {name for names, *_ in _BELONG for name in names}


def test_sigterm_keeps_a_checkpoint_and_says_how_to_go_on(city: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "citycover_cli", *map(str, arguments(city, run))]
    process = subprocess.Popen(
        [*command, "--set", "chips_per_epoch=4000", "--set", "chip=32"], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not (run / "metrics.jsonl").is_file() or not (run / "metrics.jsonl").read_text():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 143, said
    assert "--resume" in said and (run / "checkpoint.pt").is_file()
