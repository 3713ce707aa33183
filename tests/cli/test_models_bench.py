import json
import shutil
from pathlib import Path

import pytest
from conftest import write_scene

from citycover.model.bench import BenchRow
from citycover.model.form import FORMS, forms_here
from citycover.plan.plan import Plan

FLAGS = ("--repeats", "1", "--window", "128")


@pytest.fixture(autouse=True)
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes ten seconds to compile is left out here."""
    monkeypatch.setattr("shutil.which", lambda _name: None)


def test_every_form_and_precision_of_a_model_is_measured(citycover) -> None:
    rows = json.loads(citycover("models", "bench", "spectral-rgb", *FLAGS, "--json").out)
    assert [(row["form"], row["precision"]) for row in rows] == [
        (form, precision) for form in forms_here() for precision in ("fp32", "bf16")
    ]
    assert all(row["mpx_per_s"] > 0 or row["note"].startswith("cannot run") for row in rows)
    assert rows[0]["passes"] and rows[0]["disagreement"] == 0
    text = citycover("models", "bench", "spectral-rgb", *FLAGS).out
    assert "* is the fastest" in text and text.count("*") >= 2 and "torchscript, fp32" in text
    few = json.loads(
        citycover("models", "bench", "spectral-rgb", *FLAGS, "--precision", "fp32", "--json").out
    )
    assert {row["precision"] for row in few} == {"fp32"}


def test_what_is_found_on_a_scene_is_what_map_takes(
    citycover, small_windows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CITYCOVER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("citycover.model.gate.fast_precision", lambda _device: "bf16")
    monkeypatch.setattr("citycover.compute.verdicts.FASTEST", 1e9)
    scene = write_scene(tmp_path / "scene.tif", (500, 500))

    def form_of_plan() -> tuple[str, str]:
        plan = json.loads(citycover("plan", scene, "--model", small_windows, "--json").out)
        return plan["form"], plan["precision"]

    assert form_of_plan() == ("torchscript", "fp32"), "a small scene is no place to try"
    assert not (tmp_path / "cache/verdicts").exists() or not any((tmp_path / "cache/verdicts").iterdir())
    flags = ("--repeats", "1", "--scene", scene, "--json")
    rows = json.loads(citycover("models", "bench", small_windows, *flags).out)
    assert {row["form"] for row in rows} == set(forms_here()) <= set(FORMS)
    (kept,) = (tmp_path / "cache/verdicts").iterdir()
    slowed = json.loads(kept.read_text())
    for row in slowed["rows"]:
        bf16 = row["form"] == "torchscript" and row["precision"] == "bf16"
        row |= {"mpx_per_s": 1e6 if bf16 else 1.0, "processor_s": 1e-6 if bf16 else 1.0, "passes": True}
    kept.write_text(json.dumps(slowed))
    assert form_of_plan() == ("torchscript", "bf16")
    if "openvino" in forms_here():
        citycover("models", "bench", small_windows, *flags, "--form", "openvino")
        made = list((tmp_path / "cache/forms").glob("*/record.json"))
        assert len(made) == 2, "for the windows that were tried, and those of the run"
        for row in slowed["rows"]:
            quick = (row["form"], row["precision"]) == ("openvino", "fp32")
            row |= {"processor_s": 1e-9 if quick else 1.0, "mpx_per_s": 1e8 if quick else 1.0}
            row |= {"first_s": 1e5, "first_processor_s": 1e5, "again_s": 1e-9, "again_processor_s": 1e-9}
        kept.write_text(json.dumps(slowed))
        assert form_of_plan() == ("openvino", "fp32"), "it is made for these windows, which are 0.25 Mpx"
        shutil.rmtree(tmp_path / "cache/forms")
        monkeypatch.setattr("citycover.compute.verdicts.FASTEST", 0.9)
        assert form_of_plan() == ("torchscript", "fp32"), "it would have to be made"


def test_a_window_that_the_model_does_not_take_is_refused(citycover) -> None:
    result = citycover("models", "bench", "nothing-there")
    assert result.code == 2 and "nothing-there" in result.err
    result = citycover("models", "bench", "spectral-rgb", "--window", 4100)
    assert result.code == 2 and "up to 4096, got --window 4100; the nearest that fits is 4096" in result.err


def test_more_threads_than_a_machine_takes_are_refused(citycover) -> None:
    result = citycover("models", "bench", "spectral-rgb", "--threads", 100_000)
    assert result.code == 2 and "this machine takes 1 to" in result.err


def test_what_is_asked_for_is_measured_or_refused_though_it_is_slow(citycover) -> None:
    result = citycover("models", "bench", "spectral-rgb", *FLAGS, "--device", "cpu", "--precision", "tf32")
    assert result.code == 4 and "tf32 is a precision of CUDA devices" in result.err
    asked = ("--precision", "fp16", "--form", "torchscript", "--device", "cpu", "--json")
    (row,) = json.loads(citycover("models", "bench", "spectral-rgb", *FLAGS, *asked).out)
    assert (row["form"], row["precision"]) == ("torchscript", "fp16")


def test_windows_that_no_memory_holds_are_refused(citycover, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = citycover("models", "bench", "spectral-rgb", *FLAGS, "--batch", 10**9)
    assert refused.code == 4 and "--batch 1000000000: windows of 128 px and their scores take" in refused.err
    monkeypatch.setattr("citycover.model.bench.free_memory", lambda: 5 << 20)
    flags = ("models", "bench", "spectral-rgb", *FLAGS, "--form", "torchscript", "--precision", "fp32")
    # 3 bands and 5 classes of 128 x 128 px, 4 bytes each: half a MiB.
    assert "there are 0.0; give 10 at most" in citycover(*flags, "--batch", 11).err
    assert citycover(*flags, "--batch", 10).code == 0


def test_a_batch_counts_on_a_scene_too(citycover, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene, batches = write_scene(tmp_path / "scene.tif", (150, 600)), []

    def timed(_predictor: object, plan: Plan, rows: tuple[BenchRow, ...], *_: object) -> tuple[BenchRow, ...]:
        batches.append(plan.batch)
        return rows

    monkeypatch.setattr("citycover.run.bench.time_in_windows", timed)
    flags = (*FLAGS, "--device", "cpu", "--form", "torchscript", "--precision", "fp32", "--batch", 3)
    assert citycover("models", "bench", "spectral-rgbn", *flags, "--scene", scene).code == 0
    assert batches == [3]


@pytest.mark.skipif("openvino" in forms_here(), reason="it is installed")
def test_a_form_that_is_not_installed_is_named_with_what_to_install(citycover, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif")
    result = citycover("map", scene, "-o", tmp_path / "out", "--form", "openvino")
    assert result.code == 4 and "pip install 'citycover[openvino]'" in result.err


@pytest.mark.parametrize("verb", ["map", "plan", "bench"])
def test_a_form_that_cannot_be_here_is_refused_with_what_to_do(citycover, tmp_path: Path, verb: str) -> None:
    scene = write_scene(tmp_path / "scene.tif")
    words = {
        "map": ("map", scene, "-o", tmp_path / "out"),
        "plan": ("plan", scene),
        "bench": ("models", "bench", "spectral-rgb"),
    }
    result = citycover(*words[verb], "--form", "aotinductor")
    assert result.code == 4 and "--form aotinductor compiles networks by g++" in result.err
    assert "apt install g++" in result.err
    result = citycover(*words[verb], "--form", "tensorrt", "--device", "cpu")
    assert result.code == 4 and "pip install 'citycover[tensorrt]' tensorrt" in result.err
