"""How fast a model runs here in each form and precision: `citycover models bench`."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from citycover.compute.forms import lanes_asked, trial_side, try_lanes
from citycover.compute.trials import sample_windows
from citycover.compute.verdicts import Verdicts
from citycover.errors import ModelError
from citycover.job.job import Job, prepare
from citycover.job.request import EngineOptions, Imagery
from citycover.machine.device import choose_device
from citycover.model.bench import BenchRow, bench_model, lanes_possible
from citycover.model.form import check_form
from citycover.model.joint import check_map_model, read_map_model
from citycover.model.predictor import load_predictor
from citycover.read.open import open_readers

_GATE_WINDOWS = 16
"""Windows of the scene on which forms are compared."""


def bench_random(
    model: str, engine: EngineOptions, *, batch: int = 1, require_hash: str | None = None, repeats: int = 5
) -> tuple[BenchRow, ...]:
    """Measure a model on windows of random numbers.

    Raises:
        CitycoverError: anything the user can mend.
    """
    found = read_map_model(model)
    check_map_model(found, require_hash)
    if engine.threads:
        torch.set_num_threads(engine.threads)
    device = choose_device(engine.device)
    if engine.form != "auto":
        check_form(engine.form, device.type)
    lanes = [
        lane for lane in lanes_possible(device)
        if engine.form in ("auto", lane.form) and engine.precision in ("auto", lane.precision)
    ]  # fmt: skip
    return bench_model(
        found.members[0].path, device, lanes, window=engine.window, batch=batch, repeats=repeats
    )


def bench_on_scene(
    model: str,
    scene: Sequence[str],
    engine: EngineOptions,
    *,
    require_hash: str | None = None,
    repeats: int = 5,
) -> tuple[BenchRow, ...]:
    """Measure a model on windows of a scene, and keep what was found: `--form auto` takes what is fastest.

    Raises:
        CitycoverError: anything the user can mend.
    """
    job = prepare(Imagery(tuple(scene)), model, engine=engine, require_hash=require_hash)
    if engine.threads:
        torch.set_num_threads(engine.threads)
    predictor = load_predictor(job.model, choose_device(engine.device))
    lanes = lanes_asked(engine.form, engine.precision, predictor)
    windows = _windows(job)
    if not windows:
        raise ModelError(f"no window of {', '.join(scene)} has a valid pixel; give a scene that has some")
    rows = try_lanes(predictor, lanes, windows, repeats)
    if predictor.device.type == "cpu":
        Verdicts.of(job.model.sha256, [trial_side(job.model.card)], predictor.device).add(rows)
    return rows


def _windows(job: Job) -> list[list[torch.Tensor]]:
    readers = open_readers(job.scene, job.engine.threads)
    return sample_windows(job.draft, job.model.card, readers, _GATE_WINDOWS * job.draft.window_pixels)
