import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import write_scene
from making import make_card, make_scene, plan_of, run_sweeps

from citycover.compute import bound, choices
from citycover.compute.choices import (
    Settled,
    _settle_lane,
    choose_precision,
    default_batch,
    settle,
    widened,
)
from citycover.compute.trials import measure_speed
from citycover.errors import MachineError
from citycover.job.job import Job, prepare
from citycover.job.request import EngineOptions, Imagery
from citycover.model.bench import Lane
from citycover.model.builtin import builtin_path
from citycover.model.form import Form
from citycover.model.precision import Precision
from citycover.model.predictor import FunctionPredictor, ModelPredictor
from citycover.plan.plan import CHUNK, Plan


def test_precision_auto_asks_the_hardware_and_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = ModelPredictor.load(builtin_path("spectral-rgbn"), torch.device("cpu"))
    predictor = replace(predictor, card=predictor.card.model_copy(update={"precision": "any"}))
    samples = [[torch.randint(0, 255, (1, 4, 96, 96), dtype=torch.uint8)]]
    assert choose_precision("bf16", predictor, lambda: samples) == "bf16"
    monkeypatch.setattr(choices, "fast_precisions", lambda _device: ())
    assert choose_precision("auto", predictor, lambda: pytest.fail("nothing to compare")) == "fp32"
    monkeypatch.setattr(choices, "fast_precisions", lambda _device: ("bf16", "fp16"))
    passes = iter([True, False, True, False, False])
    monkeypatch.setattr(choices, "passes_gate", lambda _exact, _fast: next(passes))
    assert choose_precision("auto", predictor, lambda: samples) == "bf16"
    assert choose_precision("auto", predictor, lambda: samples) == "fp16"
    assert choose_precision("auto", predictor, lambda: samples) == "fp32"


def test_a_probe_of_speed_is_positive() -> None:
    card = make_card(64, 4, 8)
    plan = replace(plan_of(make_scene((300, 300)), card), batch=2)
    predictor = ModelPredictor.load(builtin_path("spectral-rgbn"), torch.device("cpu"))
    assert measure_speed(plan, predictor).seconds(plan) > 0


def test_a_batch_has_the_windows_of_a_row_as_far_as_they_fit() -> None:
    cpu, card = torch.device("cpu"), make_card(64, 4, 8)
    few, many = (plan_of(make_scene((300, width)), card) for width in (300, 9000))
    assert default_batch(few, cpu) == few.x.count < 64
    batches = -(-many.x.count // 64)
    assert default_batch(many, cpu) == -(-many.x.count // batches) <= 64  # even ones
    fine = replace(many, scale=Fraction(5))
    most = 1_500_000 // (25 * many.window_pixels)
    assert 0.8 * most < default_batch(fine, cpu) <= most < 64
    assert default_batch(plan_of(make_scene((9000, 9000)), make_card(2048, 4, 8)), cpu) == 1


@pytest.mark.parametrize(
    ("window", "trim", "feather"), [(512, 64, 32), (1024, 64, 32), (1200, 48, 16), (2016, 64, 32)]
)
def test_on_a_gpu_hardly_a_slot_of_a_batch_is_empty(window: int, trim: int, feather: int) -> None:
    """Counted in a small image that has as many windows in a row as a city of 92,736 px."""
    cuda, card = torch.device("cuda"), make_card(window, trim, feather)
    city = plan_of(make_scene((2048, 92_736)), card)
    assert widened(city, cuda).block_counts == (1, 1)
    batch, pushed = default_batch(city, cuda), []

    def counting(image: torch.Tensor) -> torch.Tensor:
        pushed.append(len(image))
        return image[:, :1].float().expand(-1, 5, -1, -1)

    small = make_card(24, 3, 2)
    shape = (20, 16 * city.x.count)
    plan = widened(replace(plan_of(make_scene(shape), small, block=(CHUNK, CHUNK)), batch=batch), cuda)
    assert plan.x.count == city.x.count
    image = np.zeros((*shape, 3), np.uint8)
    run_sweeps(plan, small, counting, [image], [None])
    assert plan.windows <= sum(pushed) <= 1.10 * plan.windows


@pytest.fixture
def job(tmp_path: Path) -> Job:
    scene = write_scene(tmp_path / "scene.tif", (300, 700))
    return prepare(Imagery((str(scene),)), "spectral-rgbn")


def test_what_an_unfinished_run_had_settled_stays_unless_something_else_is_asked_for(job: Job) -> None:
    predictor = ModelPredictor.load(job.model.path, torch.device("cpu"))

    def settled(kept: dict[str, Any] | None = None, **asked: Any) -> Settled:
        return settle(replace(job, engine=EngineOptions(**asked)), predictor, kept)

    first = settled(window=128, batch=3, precision="bf16", block=(CHUNK, CHUNK))
    assert (first.plan.batch, first.plan.precision, first.plan.block_shape) == (3, "bf16", (CHUNK, CHUNK))
    kept = json.loads(json.dumps(first.kept))  # as the store holds it
    assert settled(kept, batch=3) == first, "nothing is tried, nothing is chosen anew"
    changed = settled(kept, window=256, batch=2, precision="fp32").plan
    assert changed == replace(job.plan_in(256, 2, "fp32"), block_shape=first.plan.block_shape), (
        "blocks alone are no choice of the one who asks"
    )


def test_memory_bounds_a_run_that_goes_on_too(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it began with decides pixels: it is gone on with, or refused."""
    predictor = ModelPredictor.load(job.model.path, torch.device("cpu"))
    monkeypatch.setattr(bound, "peak_rss", lambda: 2**30)
    monkeypatch.setattr(bound, "process_memory", lambda _name: 2**30)

    def settled(memory: float | None, kept: dict[str, Any] | None = None) -> Settled:
        engine = EngineOptions(window=128, batch=2, precision="fp32", memory=memory)
        return settle(replace(job, engine=engine), predictor, kept)

    begun = settled(None)
    for kept in (begun.kept, settled(4.0).kept):
        with pytest.raises(
            MachineError, match=r"--memory 0\.5 is too little to go on .* 1\.\d\d GiB; .*--restart"
        ):
            settled(0.5, kept)
        assert settled(4.0, kept).plan == begun.plan
    bounded = settled(4.0).kept
    monkeypatch.setattr(bound, "peak_rss", lambda: 2**33)
    monkeypatch.setattr(bound, "process_memory", lambda _name: 2**33)
    assert settled(4.0, bounded).plan == begun.plan, "what fitted when it began is not measured again"


def test_a_batch_has_no_more_windows_than_a_row(
    job: Job, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    predictor = ModelPredictor.load(job.model.path, torch.device("cpu"))
    engine = EngineOptions(window=128, batch=100_000, precision="fp32")
    with caplog.at_level("INFO"):
        found = settle(replace(job, engine=engine), predictor)
    row = found.plan.x.count
    assert (
        1 < found.plan.batch == row < 20 and f"{row} windows go through the network together" in caplog.text
    )
    assert replace(job, engine=engine).draft == found.plan
    assert settle(replace(job, engine=engine), predictor, found.kept).plan == found.plan


def test_on_a_gpu_the_gate_decides_where_nothing_was_timed(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial takes two batches of windows; a form without the precision of the gate takes its first."""
    predictor = FunctionPredictor(job.model.card, lambda image: image, torch.device("cuda"))
    plan = job.plan_in(128, 3, "fp32")
    asked: list[float] = []

    def samples(_plan: Plan, _card: object, _readers: object, pixels: int) -> list[list[torch.Tensor]]:
        asked.append(pixels / plan.window_pixels)
        return []

    def unknown(*given: Any) -> Lane:
        given[4]()
        return given[5]()

    monkeypatch.setattr(choices, "sample_windows", samples)
    monkeypatch.setattr(choices, "choose_lane", unknown)

    def taken(form: Form, gate: Precision, *precisions: Precision) -> Lane:
        lanes = tuple(Lane(form, precision) for precision in precisions)
        monkeypatch.setattr(choices, "lanes_asked", lambda *_: lanes)
        monkeypatch.setattr(choices, "choose_precision", lambda *_: gate)
        return _settle_lane(job, predictor, {}, plan)

    assert taken("torchscript", "tf32", "fp32", "tf32", "bf16") == Lane("torchscript", "tf32")
    assert taken("aotinductor", "bf16", "fp32", "tf32", "bf16") == Lane("aotinductor", "bf16")
    assert taken("tensorrt", "fp32", "tf32", "bf16") == Lane("tensorrt", "tf32")
    assert asked == [6.0] * 3


def test_a_request_that_leaves_nothing_open_is_settled_as_its_draft(job: Job) -> None:
    asked = replace(job, engine=EngineOptions(window=128, batch=2, precision="fp32", threads=1))
    before = torch.get_num_threads()
    try:
        found = settle(asked, ModelPredictor.load(job.model.path, torch.device("cpu")))
    finally:
        torch.set_num_threads(before)
    assert found.plan == asked.draft and (found.device, found.threads) == ("cpu", 1)
