"""How a region stands, asked from outside: by a person, a dashboard, a health check."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from citycover.errors import ProductError
from citycover.files.failures import machine_errors
from citycover.files.remote import Place
from citycover.region.bucket import AnyRegion
from citycover.region.config import Region
from citycover.region.folder import read_facts
from citycover.region.now import Now, read_now
from citycover.region.relaid import laid_otherwise
from citycover.region.run import survey_region
from citycover.region.standing import Standing

_RUNS = 10
"""That are told of, the last ones."""


@dataclass(frozen=True, slots=True)
class RegionStatus:
    """How a region stands."""

    standings: Sequence[Standing]
    gone: Sequence[str]
    """Scenes that the region has no more; their products stay."""
    aside: Sequence[str]
    """Products of an earlier layout, which go once all of this one is there."""
    now: Sequence[Now]
    """Runs that are under way."""
    failures: Mapping[str, Mapping[str, Any]]
    """Why scenes failed the last time, by name."""
    runs: Sequence[Mapping[str, Any]]
    """The last runs, the latest last."""

    @property
    def counts(self) -> dict[str, int]:
        """Scenes by where they stand."""
        return dict(Counter[str](standing.state for standing in self.standings))

    @property
    def left_s(self) -> float | None:
        """Seconds until the last of the runs that are under way ends; None: not known, or there is none."""
        left = [now.left_s for now in self.now]
        known = [seconds for seconds in left if seconds is not None]
        return max(known) if known and len(known) == len(left) else None

    def facts(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "counts": self.counts,
            "scenes": [
                {"scene": standing.scene.name, "state": standing.state, "why": standing.why}
                for standing in self.standings
            ],
            "gone": list(self.gone),
            "aside": list(self.aside),
            "now": [asdict(now) for now in self.now],
            "left_s": self.left_s,
            "failures": [dict(failure) for failure in self.failures.values()],
            "runs": [dict(run) for run in self.runs],
        }


def status_of(region: Region) -> RegionStatus:
    """How a region stands; changes nothing.

    Raises:
        CitycoverError: the region file names what is not there.
    """
    survey = survey_region(region)
    folder = survey.folder
    with machine_errors(region.out):
        # What a run that was killed has left says that it is under way: its lock does not.
        notes = [read_now(folder.now_of(shard)) for shard in folder.names("now") if folder.held(shard)]
        failures = {name: found for name in survey.scenes if (found := _failure(folder.failure_of(name)))}
        aside = laid_otherwise(survey)
        return RegionStatus(
            standings=tuple(map(survey.standing, survey.scenes)),
            gone=tuple(name for name in survey.gone if name not in aside),
            aside=tuple(aside),
            now=tuple(now for now in notes if now is not None),
            failures=failures,
            runs=_last_runs(folder),
        )


def _failure(path: Place) -> Mapping[str, Any]:
    """Why a scene failed; empty: it did not, or a run has just mended it."""
    try:
        return read_facts(path) if path.is_file() else {}
    except ProductError as error:
        return {"message": str(error)} if path.is_file() else {}


def _last_runs(folder: AnyRegion) -> tuple[Mapping[str, Any], ...]:
    """The last lines of the history; one that a power cut cut is left out."""
    if not folder.history.is_file():
        return ()
    found = []
    for line in folder.history.read_bytes().decode(errors="replace").splitlines()[-_RUNS:]:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return tuple(run for run in found if isinstance(run, dict) and isinstance(run.get("counts"), dict))
