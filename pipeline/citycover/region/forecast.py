"""What a run of a region would do, in pixels, bytes, time, disk: nothing changes, no network is loaded."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from citycover.errors import CitycoverError, SceneError
from citycover.files.remote import Place
from citycover.job.job import prepare_request
from citycover.region.check import check_region
from citycover.region.config import Region
from citycover.region.record import SceneRecord, read_record_of
from citycover.region.relaid import laid_otherwise
from citycover.region.run import Share, survey_region
from citycover.region.standing import Standing, Survey


@dataclass(frozen=True, slots=True)
class SceneForecast:
    """What is to be done with a scene."""

    scene: str
    state: str
    why: str = ""
    pixels: int = 0
    """Of output, to be computed."""
    read_bytes: int = 0
    """Decoded."""
    write_bytes: int = 0
    """Before compression."""
    problem: str = ""
    """Why it would be refused."""


@dataclass(frozen=True, slots=True)
class RegionForecast:
    """What a run of a region would do."""

    scenes: Sequence[SceneForecast]
    speed: float | None
    """Pixels a second of what was mapped earlier with this model; None: nothing was."""
    free_bytes: int | None
    """Of the disk of the region; None: it lies in a store."""
    aside: Sequence[str] = ()
    """Products of an earlier layout, which go once all of this one is there."""

    @property
    def pixels(self) -> int:
        """To be computed."""
        return sum(scene.pixels for scene in self.scenes)

    @property
    def write_bytes(self) -> int:
        """To be written, before compression: no more is needed."""
        return sum(scene.write_bytes for scene in self.scenes)

    @property
    def seconds(self) -> float | None:
        """That it would take; None: not known."""
        return self.pixels / self.speed if self.speed else None

    def facts(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "scenes": [asdict(scene) for scene in self.scenes],
            "pixels": self.pixels,
            "read_bytes": sum(scene.read_bytes for scene in self.scenes),
            "write_bytes": self.write_bytes,
            "free_bytes": self.free_bytes,
            "pixels_per_s": self.speed,
            "seconds": self.seconds,
            "aside": list(self.aside),
        }


def forecast_region(region: Region, share: Share | None = None) -> RegionForecast:
    """What `run_region` would do; scenes that would be refused say why.

    Raises:
        CitycoverError: the region file names what is not there.
    """
    share = share or Share()
    survey = survey_region(region)
    names = share.of(tuple(survey.scenes.values()))
    standings = [survey.standing(name) for name in names]
    todo = survey.todo(standings, share.limit)
    if todo:
        check_region(region)
    done = [SceneForecast(s.scene.name, s.state) for s in standings if s.state == "done"]
    scenes = (*(_forecast(region, survey, s) for s in todo), *done)
    return RegionForecast(scenes, _speed(survey), _free(region.out), tuple(laid_otherwise(survey)))


def _free(out: Place) -> int | None:
    if not isinstance(out, Path):
        return None
    return shutil.disk_usage(next(path for path in (out, *out.parents) if path.exists())).free


def _forecast(region: Region, survey: Survey, standing: Standing) -> SceneForecast:
    name = standing.scene.name
    if standing.record is not None:  # its map is there
        return SceneForecast(name, standing.state, standing.why)
    asked = region.request(standing.scene.files, survey.folder.next_of(name), standing.scene.tile)
    try:
        if standing.scene.problem:
            raise SceneError(standing.scene.problem)
        job = prepare_request(asked)
    except CitycoverError as error:
        return SceneForecast(name, standing.state, standing.why, problem=str(error))
    plan = job.draft
    totals = job.totals(plan)
    pixels = plan.shape[0] * plan.shape[1]
    return SceneForecast(name, standing.state, standing.why, pixels, totals.read_bytes, totals.write_bytes)


def _speed(survey: Survey) -> float | None:
    """Pixels a second over all scenes that this model has mapped here."""
    model = survey.settings.map["model"]
    known = [record for record in _records(survey) if record.map.get("model") == model and record.seconds > 0]
    seconds = sum(record.seconds for record in known)
    return sum(record.pixels for record in known) / seconds if seconds else None


def _records(survey: Survey) -> Iterator[SceneRecord]:
    yield from survey.gone.values()
    for name in survey.scenes:
        if (record := read_record_of(survey.folder.record_of(name))) is not None:
            yield record
