"""All blocks in this process."""

from __future__ import annotations

import time

from citycover.compute.choices import kept_choices, settle
from citycover.compute.sink import Computed, StoreSink, open_store
from citycover.engine.blocks import run_blocks
from citycover.engine.input import SweepInput
from citycover.evidence.open import open_field
from citycover.job.job import Job, area_mask
from citycover.job.watch import Watch
from citycover.machine.device import choose_device
from citycover.machine.stages import Stages
from citycover.model.loading import load_predictor
from citycover.plan.layers import layers_named
from citycover.read.open import open_readers
from citycover.store.work import WorkFolder


def compute_here(job: Job, folder: WorkFolder, watch: Watch, stages: Stages) -> Computed:
    """All unfinished blocks, in this process."""
    with stages.time("start"):
        predictor = load_predictor(job.model, choose_device(job.engine.device), watch.stop)
        settled = settle(job, predictor, kept_choices(job, folder))
        plan = settled.plan
        store, inputs, earlier = open_store(job, folder, plan, settled.kept)
    watch.started(plan, sum(record.pixels for record in earlier.values()))
    sink = StoreSink(store, watch.predicted, folder.held, inputs, earlier, watch.stop)
    swept = time.perf_counter()
    given = SweepInput(
        plan=plan,
        predictor=predictor.at(plan.precision, plan.form),
        open_readers=open_readers(job.scene, job.engine.threads),
        area=area_mask(job, plan),
        evidence=open_field(settled.evidence, plan.grid, predictor.device),
        stages=stages,
        stop=watch.stop,
        layers=layers_named(store.arrays),
        on_windows=sink.count,
    )
    with store:
        run_blocks(given, sink, watch.advanced)
    stages.add("sweep", time.perf_counter() - swept)
    return Computed(plan, settled.device, inputs, settled.belief, settled.evidence)
