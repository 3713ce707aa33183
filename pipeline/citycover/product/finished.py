"""A run whose blocks are all there: what publishing needs, and what it tells of itself."""

from __future__ import annotations

import platform
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

import rasterio

from citycover.engine.agreement import Seams
from citycover.engine.input import WINDOWS
from citycover.evidence.noise import Belief, evidence_words
from citycover.job.inputs import Inputs
from citycover.job.job import Job
from citycover.job.request import MapRequest
from citycover.machine.memory import peak_rss
from citycover.machine.stages import ASIDE, SIDE_STAGES, SWEEP_STAGES, Stages
from citycover.model.form import Form, runtime_of
from citycover.model.joint import MapModel
from citycover.plan.plan import Plan
from citycover.product.record import (
    Amount,
    Given,
    Machinery,
    RunInput,
    RunLabels,
    RunMember,
    RunModel,
    RunRecord,
    Timing,
)
from citycover.store.ledger import BlockRecord
from citycover.store.store import WorkingStore
from citycover.version import __version__


@dataclass(frozen=True)
class Finished:
    """A run whose blocks are all in the store."""

    request: MapRequest
    job: Job
    plan: Plan
    store: WorkingStore
    inputs: Inputs
    """The files that it read, as they were when it began."""
    blocks: Sequence[BlockRecord]
    """What the ledger says of each block."""
    device: str
    stages: Stages
    begin: float
    """`time.perf_counter()` when the run began."""
    attempts: tuple[datetime, ...]
    """When the run was begun and gone on with, UTC."""
    warnings: Sequence[str] = ()
    """What was warned of so far; grows."""
    seams: Seams | None = None
    """None: not asked for."""
    belief: Belief | None = None
    """How far the labels of the place were believed; None: there were none."""
    workers: int = 1
    """Processes that computed."""
    worker_peak_rss: int = 0
    """Bytes of memory that one of them held at most, if they are other processes than this one."""

    @property
    def evidence(self) -> str:
        """What the map rests on, in words."""
        return evidence_words(self.job.labels is not None)

    def record(self, shares: Mapping[str, float]) -> RunRecord:
        """What run.json will say.

        Args:
            shares: of the classes in the valid pixels, by name.
        """
        plan, blocks = self.plan, self.blocks
        windows = {name: sum(block.counts.get(name, 0) for block in blocks) for name in WINDOWS}
        return RunRecord(
            given=self._given(),
            timing=self._timing(),
            machine=Machinery(
                device=self.device,
                precision=plan.precision,
                form=plan.form,
                workers=self.workers,
                peak_rss_bytes=max(peak_rss(), self.worker_peak_rss),
                host=socket.gethostname(),
            ),
            amount=Amount(plan.shape[0] * plan.shape[1], windows, round(plan.redundancy, 4)),
            holes=tuple(dict.fromkeys(hole for block in blocks for hole in block.holes)),
            shares=shares,
            seams=self.seams,
            labels=self._labels(),
            warnings=tuple(dict.fromkeys(self.warnings)),
            attempts=max(1, len(self.attempts)),
        )

    def _given(self) -> Given:
        job = self.job
        card = job.model.card
        return Given(
            request=self.request.facts(),
            model=_run_model(job.model),
            card=card.model_dump(mode="json"),
            inputs=self._marked([path for path, _, _ in job.scene.fingerprints]),
            gsd=job.scene.gsd,
            time=job.scene.time,
            plan=self.plan.facts(),
            identity=job.identity(self.plan),
            versions=versions(self.plan.form),
            command=tuple(sys.argv),
            start=job.scene.start if job.scene.start != job.scene.time else None,
            composite=job.scene.composite,
            dates=job.scene.dates,
            filled=job.scene.filled,
            conversions=job.scene.conversions,
        )

    def _marked(self, paths: Sequence[str]) -> tuple[RunInput, ...]:
        marks = {mark.path: mark for mark in self.inputs.marks}
        return tuple(RunInput.of(marks[path]) for path in paths)

    def _labels(self) -> RunLabels | None:
        """Which labels were evidence, and how far they were believed."""
        labels = self.job.labels
        if labels is None or self.belief is None:
            return None
        watched, changed = (
            sum(b.counts.get(name, 0) for b in self.blocks) for name in ("watched", "changed")
        )
        return RunLabels(
            changed=changed / watched if labels.change and watched else None,
            files=self._marked([str(sheet.path.absolute()) for sheet in labels.sheets]),
            legend=labels.legend,
            shares=dict(zip(self.job.model.card.channel_names, labels.shares, strict=True)),
            trust=round(1 - self.belief.share, 6),
            credits=labels.credits,
            contradicted=self.belief.noise.share,
            cells=self.belief.noise.cells,
            noise_from=self.belief.source,
            offset=self.belief.offset,
            slopes=self.belief.slopes,
            prior=self.belief.prior,
            odds=self.belief.odds,
        )

    def _timing(self) -> Timing:
        seconds = self.stages.seconds()
        sweep = seconds.get("sweep", 0.0)
        apart = ASIDE if seconds.get("device") else ()
        inside = {name: seconds.get(name, 0.0) for name in SWEEP_STAGES if name not in apart}
        stages = {
            "start": seconds.get("start", 0.0),
            **inside,
            "other": max(0.0, sweep - sum(inside.values())),
        }
        return Timing(
            wall_s=round(time.perf_counter() - self.begin, 3),
            sweep_s=round(sweep, 3),
            stages={name: round(value, 3) for name, value in stages.items()},
            beside={name: round(seconds.get(name, 0.0), 3) for name in (*SIDE_STAGES, *apart)},
            forward_share=round(seconds.get("forward", 0.0) / sweep, 4) if sweep else 0.0,
            started=self.attempts[0] if self.attempts else None,
            finished=datetime.now(UTC).replace(microsecond=0),
        )


def _run_model(model: MapModel) -> RunModel:
    """What mapped, as a record tells it."""
    members = tuple(RunMember(m.card.name, str(m.path), m.sha256, m.weight) for m in model.members)
    return RunModel(
        model.card.name, model.card.version, model.sha256, () if model.alone else members, model.turns
    )


def versions(form: Form = "torchscript") -> dict[str, str]:
    """Versions of what decides the pixels, the runtime of another form than torch's among them."""
    found = {name: version(name) for name in ("torch", "rasterio", "numpy", "odc-geo")}
    runtime, _, number = (runtime_of(form) or "").partition(" ")  # workers may have what this process lacks
    return {
        "citycover": __version__,
        **found,
        **({runtime: number} if runtime else {}),
        "gdal": rasterio.__gdal_version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    }
