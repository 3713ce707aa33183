"""What was found of the forms of a network on this machine: measured once, believed by later runs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from citycover.files.atomic import write_atomic
from citycover.machine.device import device_facts
from citycover.model.bench import BenchRow, Lane
from citycover.model.compiled import Artefact, private_folder
from citycover.model.form import FORMS, runtime_of
from citycover.version import __version__


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Of one network in windows of one shape, on a device with so many threads, by these versions."""

    about: Artefact
    """All that decides them."""

    @classmethod
    def of(cls, sha256: str, shape: Sequence[int], device: torch.device) -> Verdicts:
        """Those of a network in windows of a shape."""
        return cls(
            Artefact.of(
                model=sha256, shape=list(shape), device=device_facts(device), threads=torch.get_num_threads(),
                torch=torch.__version__, runtimes=[runtime_of(form) for form in FORMS], citycover=__version__,
            )
        )  # fmt: skip

    def read(self) -> tuple[BenchRow, ...]:
        """What an earlier run found; nothing where none did, or where it is damaged or another's."""
        folder = private_folder("verdicts")
        try:
            if folder is None or self._path(folder).is_symlink():
                return ()
            data = json.loads(self._path(folder).read_text())
            return tuple(_row(row) for row in data["rows"]) if data["of"] == self.about.facts else ()
        except (OSError, ValueError, KeyError, TypeError):
            return ()

    def add(self, rows: Sequence[BenchRow]) -> tuple[BenchRow, ...]:
        """Keep what this run found, and what earlier ones found of other forms; all of it."""
        new = {row.lane for row in rows}
        rows = (*rows, *(row for row in self.read() if row.lane not in new))
        folder = private_folder("verdicts")
        if folder is not None:
            data = {"of": self.about.facts, "rows": [asdict(row) for row in rows]}
            write_atomic(self._path(folder), json.dumps(data, indent=1))
        return rows

    def _path(self, folder: Path) -> Path:
        return folder / f"{self.about.name}.json"


def _row(given: dict[str, Any]) -> BenchRow:
    """A row as it was written.

    Raises:
        ValueError: it is none.
        TypeError: it is none.
    """
    row = BenchRow(**given)
    numbers = (
        row.mpx_per_s, row.first_s, row.first_processor_s, row.again_s, row.again_processor_s,
        row.disagreement, row.processor_s,
    )  # fmt: skip
    whole = all(isinstance(number, float) and 0 <= number < 1e9 for number in numbers)
    known = row.form in FORMS and isinstance(row.passes, bool)
    timed = (row.mpx_per_s > 0) == (row.processor_s > 0)
    if not (whole and known and timed):
        raise ValueError(f"no row: {given}")
    return row


FASTEST = 0.9
"""What another form must take at most, of the time of the first: less is noise."""


def best_lane(
    rows: Sequence[BenchRow],
    lanes: Sequence[Lane],
    mpx: float,
    setting_up: Callable[[Lane], float],
) -> Lane:
    """The form and precision in which a run takes least time: the first, or one that is clearly faster.

    Clearly is by the clock and by the time of processors: on a machine that is busy the clock tells what
    others do, and where many threads compute, processors tell little of what one of them waits for. Of those
    the least of both together is taken.

    Args:
        rows: what was found of them.
        lanes: those that may be taken; the first is what is taken where nothing is known.
        mpx: that the run pushes through the network.
        setting_up: seconds that it takes at least to make a form ready for the windows of the run.
    """
    ran = [row for row in rows if row.mpx_per_s > 0]
    known = {row.lane: _cost(row, mpx, ran, setting_up(row.lane)) for row in ran if row.lane in lanes}
    first = known.get(lanes[0])
    if first is None:
        return lanes[0]
    faster = [
        (math.prod(cost), lanes.index(row.lane))
        for row in rows
        if row.passes and (cost := known.get(row.lane)) is not None
        if all(here < FASTEST * there for here, there in zip(cost, first, strict=True))
    ]
    return lanes[min(faster)[1]] if faster else lanes[0]


def _cost(row: BenchRow, mpx: float, ran: Sequence[BenchRow], least: float) -> tuple[float, float]:
    """Seconds of a run by the clock, and of processors.

    Another form is set up for the windows of the run as it was for those that were tried: by the row that was
    first, which all of them share; or what it takes is kept, and loaded as it was for those.
    """
    clock, processors = mpx / row.mpx_per_s, mpx * row.processor_s
    if not least:
        return clock + row.again_s, processors + row.again_processor_s
    of_its_form = [other for other in ran if other.form == row.form]
    return (
        clock + max(least, *(other.first_s for other in of_its_form)),
        processors + max(least, *(other.first_processor_s for other in of_its_form)),
    )
