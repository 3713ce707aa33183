"""How fast a model runs here in each form and precision: `citycover models bench`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from citycover.compute.choices import settle
from citycover.compute.forms import SAMPLES, lanes_asked, make_ready, time_in_windows, try_lanes, verdicts_of
from citycover.compute.trials import batch_shapes, sample_windows
from citycover.errors import ModelError
from citycover.job.job import Job, prepare
from citycover.job.request import EngineOptions, Imagery
from citycover.machine.device import choose_device
from citycover.model.bench import BenchRow, bench_model, lanes_measured
from citycover.model.form import check_form
from citycover.model.joint import check_map_model, read_map_model
from citycover.model.loading import load_predictor
from citycover.model.predictor import Predictor
from citycover.plan.plan import Plan
from citycover.read.open import open_readers

_GATE_WINDOWS = 16
"""Windows of the scene on which forms are compared."""

_SECONDS = 3.0
"""That forms are compared for at least, by turns."""

_TURNS = 3
"""At most, in the windows of the run."""


def bench_random(
    model: str, engine: EngineOptions, *, require_hash: str | None = None, repeats: int = 5
) -> tuple[BenchRow, ...]:
    """Measure a model on windows of random numbers; one at a time, unless a batch is asked for.

    Raises:
        CitycoverError: anything the user can mend.
    """
    engine.check_here()
    found = read_map_model(model)
    check_map_model(found, require_hash)
    if engine.threads:
        torch.set_num_threads(engine.threads)
    device = choose_device(engine.device)
    if engine.form != "auto":
        check_form(engine.form, device.type)
    lanes = lanes_measured(engine.form, engine.precision, device)
    path, batch = found.members[0].path, engine.batch or 1
    return bench_model(path, device, lanes, window=engine.window, batch=batch, repeats=repeats)


def bench_on_scene(
    model: str,
    scene: Sequence[str],
    engine: EngineOptions,
    *,
    require_hash: str | None = None,
    repeats: int = 5,
) -> tuple[BenchRow, ...]:
    """Measure a model on windows of a scene, keep what was found, and make ready what is fastest.

    `--form auto` takes it from then on, for any scene where it saves more than it takes to make ready, and
    for those of this size as it is.

    Raises:
        CitycoverError: anything the user can mend.
    """
    job = prepare(Imagery(tuple(scene)), model, engine=engine, require_hash=require_hash)
    if engine.threads:
        torch.set_num_threads(engine.threads)
    predictor = load_predictor(job.model, choose_device(engine.device))
    lanes = lanes_asked(engine.form, engine.precision, predictor)
    plan = job.draft if predictor.device.type == "cpu" else _plan_of_run(job, predictor)
    count = _GATE_WINDOWS if predictor.device.type == "cpu" else SAMPLES * plan.batch
    readers = open_readers(job.scene, engine.threads)
    windows = sample_windows(plan, job.model.card, readers, count * plan.window_pixels)
    if not windows:
        raise ModelError(f"no window of {', '.join(scene)} has a valid pixel; give a scene that has some")
    rows = try_lanes(predictor, plan, lanes, windows, repeats, _SECONDS)
    if predictor.device.type == "cpu":
        plan = _plan_of_run(job, predictor)
        windows = sample_windows(plan, job.model.card, readers, SAMPLES * plan.batch * plan.window_pixels)
        rows = time_in_windows(predictor, plan, rows, windows, min(repeats, _TURNS))
    verdicts_of(job.model.sha256, plan, predictor).add(rows)
    mpx = plan.windows * plan.window_pixels / 1e6
    make_ready(predictor, rows, lanes, mpx, batch_shapes(plan, job.model.card, job.scene))
    return rows


def _plan_of_run(job: Job, predictor: Predictor) -> Plan:
    """Windows and batch that `map` would take."""
    return settle(
        replace(job, engine=replace(job.engine, form="torchscript", precision="fp32")), predictor
    ).plan
