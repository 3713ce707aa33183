"""run_region: every scene that is new or changed becomes a product; what is done is left alone.

survey (what is there, told by content) -> for each scene: map beside the product that is there -> note what
it was made of -> put it in its place -> polygons, areas. One scene that fails does not stop the others.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial

from citycover.errors import (
    CitycoverError,
    ConfigError,
    HeldError,
    MachineError,
    SceneError,
    StoppedError,
)
from citycover.files.failures import machine_errors
from citycover.files.plain import to_json
from citycover.files.remote import RemotePath, tag_of
from citycover.job.request import MapRequest
from citycover.job.watch import Watch
from citycover.product.collection import collect, is_of_today
from citycover.product.product import Product
from citycover.region.after import make_lacking
from citycover.region.apart import hold_shard
from citycover.region.check import check_machine, check_region
from citycover.region.config import Region
from citycover.region.folder import read_facts, remove_facts, write_facts
from citycover.region.made import step_of, take_away
from citycover.region.now import Now, NowFile
from citycover.region.outcome import Outcome, RegionReport, What
from citycover.region.record import SceneRecord, read_record_of, record_of, settings_of
from citycover.region.relaid import put_others_aside
from citycover.region.scenes import RegionScene, Shard, find_scenes
from citycover.region.standing import Standing, Survey
from citycover.region.tiles import find_tiles
from citycover.run.folder import first_allowed
from citycover.run.map import map_scene

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Share:
    """Which scenes of a region are worked on."""

    shard: Shard = field(default_factory=Shard)
    only: tuple[str, ...] = ()
    """Names; empty: all."""
    limit: int | None = None
    """At most so many that have something to do."""

    def of(self, scenes: Sequence[RegionScene]) -> tuple[str, ...]:
        """Names of the scenes that may be worked on.

        Raises:
            ConfigError: a name is no scene's.
        """
        names = [scene.name for scene in scenes]
        if unknown := sorted(set(self.only) - set(names)):
            shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
            raise ConfigError(f"--only {unknown[0]}: the region has no such scene; it has {shown}")
        return tuple(n for n in names if self.shard.holds(n) and (not self.only or n in self.only))


@dataclass(frozen=True, slots=True)
class RegionWatch:
    """How a run of a region is followed."""

    begun: Callable[[Sequence[Standing]], None] = lambda _todo: None
    """Called with all that has something to do."""
    scene: Callable[[Standing], Watch] = lambda _standing: Watch()
    """Called before each scene; gives how its map is followed, and stopped."""
    retried: Callable[[str], None] = lambda _name: None
    """Called with the name of a scene that the machine failed before it is tried again."""
    ended: Callable[[Outcome], None] = lambda _outcome: None
    """Called after each scene."""
    stop: threading.Event = field(default_factory=threading.Event)
    """Set it, and the run ends with StoppedError after the batch in hand."""


def survey_region(region: Region) -> Survey:
    """All scenes of a region and what is there of them; changes nothing.

    Raises:
        CitycoverError: the region file names what is not there.
    """
    scenes = find_scenes(region.scenes, region.out) if region.mosaic is None else find_tiles(region)
    with machine_errors(region.out):
        return Survey.of(region, settings_of(region), scenes)


def run_region(
    region: Region,
    share: Share | None = None,
    watch: RegionWatch | None = None,
    *,
    overwrite: bool = False,
    restart: bool = False,
) -> RegionReport:
    """Work on all scenes of a region that have something to do.

    Args:
        region: with its scenes.
        share: those that are worked on; None: all.
        watch: how it is followed.
        overwrite: map those again that are done.
        restart: drop what was begun of a scene, instead of going on with it.

    Raises:
        HeldError: another run of the shard, or of one that has scenes of it, is under way, and is left alone.
        StoppedError: `watch.stop` was set; what is finished is kept.
        MachineError: this machine lacks the device or the form that the region file asks for.
        CitycoverError: the region file is wrong, or its folder is another's. What is wrong with one scene
            stands in the report instead.
    """
    share, watch = share or Share(), watch or RegionWatch()
    survey = survey_region(region)
    names = share.of(tuple(survey.scenes.values()))
    survey.folder.prepare(region.name)
    with hold_shard(survey.folder, share.shard, region.policy.held, watch.stop):
        run = _Run(region, share, watch, survey, overwrite=overwrite, dropped=names if restart else ())
        return run.all_of(names)


class _Run:
    """One run: what it found, what it did."""

    def __init__(
        self, region: Region, share: Share, watch: RegionWatch, survey: Survey,
        *, overwrite: bool, dropped: Iterable[str],
    ) -> None:  # fmt: skip
        self.region, self.share, self.watch, self.survey = region, share, watch, survey
        self.folder, self.overwrite = survey.folder, overwrite
        self.dropped = set(dropped)
        """Scenes of which nothing counts that was begun before."""
        self.aside: tuple[str, ...] = ()
        """What went, because the region was laid out anew."""
        self.report = RegionReport(region.name, str(share.shard))

    def all_of(self, names: Sequence[str]) -> RegionReport:
        """Work on scenes by name."""
        standings = [self._standing(name) for name in names]
        todo = self.survey.todo(standings, self.share.limit)
        if todo:
            check_region(self.region)
        if any(standing.record is None for standing in todo):  # to be mapped
            check_machine(self.region.engine)
        self.report.done = sum(standing.state == "done" for standing in standings)
        self.watch.begun(todo)
        self.now = NowFile(self.folder, Now(str(self.share.shard), self.report.started, len(todo)))
        try:
            for standing in todo:
                self.now.note(scene=standing.scene.name, share=0.0)
                self._ended(self._tried(standing.scene.name))
            self._put_others_aside()
        except BaseException as error:
            # A signal may be raised anywhere, and is no Exception.
            self.report.stopped = isinstance(error, StoppedError) or not isinstance(error, Exception)
            self.report.error = "" if self.report.stopped else str(error) or type(error).__name__
            raise
        finally:
            self._collect()
            self.now.forget()
            self.report.finished = datetime.now(UTC)
            self.folder.note_run(self.report.facts())
        return self.report

    def _standing(self, name: str) -> Standing:
        standing = self.survey.standing(name)
        if self.overwrite and standing.state in ("done", "incomplete", "renamed"):
            return Standing(standing.scene, "changed", "--overwrite")
        return standing

    def _put_others_aside(self) -> None:
        self.aside = put_others_aside(self.survey, self.region.policy.keep)
        if self.aside:
            logger.warning("of an earlier layout, and put aside: %s", ", ".join(self.aside))

    def _collect(self) -> None:
        """The products as one STAC collection; without it they are whole all the same."""
        maps = self.folder.maps
        new = bool(self.aside) or any(
            outcome.what in ("mapped", "renamed") for outcome in self.report.outcomes
        )
        # A run that was killed has not come as far as this. In a store only what this one did is asked for.
        if not new and (isinstance(maps, RemotePath) or is_of_today(maps)):
            return
        try:
            collect(maps, title=self.region.name)
        except CitycoverError as error:
            logger.warning("maps/collection.json is not of today: %s", error)

    def _ended(self, outcome: Outcome) -> None:
        self.report.outcomes.append(outcome)
        now = self.now.now
        self.now.note(
            ended=now.ended + 1,
            failed=now.failed + outcome.failed,
            pixels=now.pixels + outcome.pixels,
            seconds=now.seconds + outcome.seconds,
        )
        failure = self.folder.failure_of(outcome.scene)
        if outcome.failed:
            write_facts(failure, to_json(outcome.facts()))
        else:
            remove_facts(failure)
        self.watch.ended(outcome)

    def _tried(self, name: str) -> Outcome:
        """Work on a scene; what goes wrong with it is its outcome, once trying again is over."""
        for attempt in range(self.region.policy.retries + 1):
            begin = time.perf_counter()
            outcome = self._outcome(name)
            outcome = replace(outcome, seconds=round(time.perf_counter() - begin, 3))
            if outcome.kind != MachineError.__name__ or self.watch.stop.is_set():
                break
            logger.warning("scene %s, attempt %d: %s", name, attempt + 1, outcome.message)
            if attempt < self.region.policy.retries:
                self.watch.retried(name)
        return outcome

    def _outcome(self, name: str) -> Outcome:
        # What another shard did meanwhile is seen: where it stands is asked only now.
        try:
            return self._work(self._standing(name))
        except StoppedError:
            raise
        except HeldError as error:
            return Outcome(name, "held", message=str(error))
        except CitycoverError as error:
            return Outcome(name, "failed", message=str(error), kind=type(error).__name__)
        except Exception as error:  # a fault of ours in one scene is no reason to leave the others
            logger.exception("scene %s", name)
            message = f"{type(error).__name__}: {error}"
            return Outcome(name, "failed", message=message, kind="bug", trace=traceback.format_exc())

    def _work(self, standing: Standing) -> Outcome:
        name, state, record = standing.scene.name, standing.state, standing.record
        if state == "done":
            return Outcome(name, "done")
        if state == "renamed" and record is not None:
            self._rename(standing.earlier, record)
        elif state != "incomplete" or record is None:
            record = self._map(standing)
        wanted, lacking = self.survey.settings.after, self.survey.lacking(record)
        make_lacking(self.region, self.folder, record, wanted, lacking, self.watch.stop, self._note)
        done: Mapping[str, What] = {"renamed": "renamed", "incomplete": "completed"}
        pixels = 0 if state in done else record.pixels
        return Outcome(name, done.get(state, "mapped"), standing.why, pixels=pixels, holes=record.holes)

    def _map(self, standing: Standing) -> SceneRecord:
        """Map a scene beside the product that is there, note of what, and put it in its place."""
        scene, folder = standing.scene, self.folder
        if scene.problem:
            raise SceneError(scene.problem)
        request = self.region.request(scene.files, folder.next_of(scene.name), scene.tile)
        tags = {file: tag_of(file) for file in scene.files}
        # What lies in a store is known to the map by its address alone: nothing of another content may stay.
        anew = any(tags.values()) and self._begun_of(scene.name, tags)
        if scene.name in self.dropped:  # once: what this run begins of it, the next attempt goes on with
            self.dropped.remove(scene.name)
            anew = True
        product = _made(request, self.now.beside(self.watch.scene(standing)), anew=anew)
        mark = folder.mark(product.folder)
        record = record_of(scene.name, tags, product, mark, self.survey.settings)
        record = replace(record, made=self._still_wanted(scene.name))
        self._note(record)
        remove_facts(folder.begun_of(scene.name))
        folder.place(scene.name, self.region.policy.keep)
        return record

    def _still_wanted(self, scene: str) -> Mapping[str, str]:
        """What was made of the map that is about to be replaced and will be again; the rest goes."""
        before = read_record_of(self.folder.record_of(scene))
        if before is None:
            return {}
        others = [name for name in before.made if step_of(name) not in self.survey.settings.after]
        return take_away(self.folder, scene, before.made, others)

    def _begun_of(self, scene: str, tags: Mapping[str, str]) -> bool:
        """Note what a map is begun of; answers whether what is there of it may be of something else."""
        # A map on its way into a store is made on this host, unless its blocks are kept where all see them.
        alone = isinstance(self.folder.out, RemotePath) and self.region.engine.work is None
        host = socket.gethostname() if alone else ""
        note, facts = self.folder.begun_of(scene), {"files": dict(tags), "host": host}
        if note.is_file() and read_facts(note) == facts:
            return False
        write_facts(note, to_json(facts))
        return True

    def _note(self, record: SceneRecord) -> None:
        write_facts(self.folder.record_of(record.name), to_json(record.facts()))

    def _rename(self, old: str, record: SceneRecord) -> None:
        self._note(record)
        if old == record.name:
            return
        self.folder.rename(old, record.name)
        self._note(replace(record, product=self.folder.mark(self.folder.map_of(record.name))))
        remove_facts(self.folder.record_of(old))


def _made(request: MapRequest, watch: Watch, *, anew: bool) -> Product:
    """The product of a request: gone on with where it was begun, else begun anew."""

    def way(overwrite: bool, restart: bool) -> Product:
        options = replace(request.product, overwrite=overwrite, restart=restart)
        return map_scene(replace(request, product=options), watch)

    ways = ((True, True),) if anew else ((False, False), (True, False), (True, True))
    return first_allowed((partial(way, *how) for how in ways), request.out)
