"""A request that was understood: nothing was read but metadata."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from affine import Affine
from odc.geo.geobox import GeoBox

from citycover.errors import LayoutError, PlanError, SceneError
from citycover.evidence.labels import PlaceLabels
from citycover.evidence.request import LabelRequest
from citycover.geometry.tiles import Tile
from citycover.geometry.window import Window
from citycover.job.labels import look_at_labels
from citycover.job.request import EngineOptions, Imagery, MapRequest, Where
from citycover.machine.script import check_not_reread
from citycover.model.archive import ModelFile
from citycover.model.builtin import read_builtins
from citycover.model.card import ModelCard
from citycover.model.joint import MapModel, check_map_model, join, read_map_model
from citycover.model.precision import Precision
from citycover.plan.cost import PlanTotals
from citycover.plan.fit import PlanOptions, check_windows, make_plan, tile_reach
from citycover.plan.layers import USUAL, Layer, layers_of
from citycover.plan.plan import CHUNK, Plan
from citycover.read.collar import constant_border
from citycover.read.numbers import check_numbers, refuse_masks
from citycover.read.promise import check_promises
from citycover.read.small import Hints
from citycover.scene.area import Area, AreaMask, area_of_box, read_area
from citycover.scene.assemble import answered, assemble_scene, fits, read_lattice
from citycover.scene.file import FileInfo, describe_files, lost_sources
from citycover.scene.lattice import lattice_of
from citycover.scene.masks import split_masks, unused_masks
from citycover.scene.scene import Scene

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """A request that was understood: nothing was read but metadata."""

    model: MapModel
    scene: Scene
    area: Area | None
    engine: EngineOptions
    labels: PlaceLabels | None = None
    """None: the network maps alone."""
    layers: tuple[Layer, ...] = USUAL
    """What is said of each pixel."""
    tile: Tile | None = None
    """That the area is; None: a scene by itself."""
    draft: Plan = field(init=False, repr=False, compare=False)
    """What metadata alone can tell: windows and batch as asked for, else the card's, one by one, in fp32
    by torch. What a run does is settled where the network is: `compute/choices.py`."""

    def __post_init__(self) -> None:
        """Raise PlanError where window, trim or feather contradict each other or the card."""
        asked = self.engine
        precision = "fp32" if asked.precision == "auto" else asked.precision
        form = "torchscript" if asked.form == "auto" else asked.form
        draft = replace(self.plan_in(asked.window, asked.batch or 1, precision), form=form)
        object.__setattr__(self, "draft", draft)

    def plan_in(self, window: int | None, batch: int, precision: Precision) -> Plan:
        """The plan in windows of a length; None: the card's.

        Raises:
            PlanError: window, trim or feather contradict each other or the card.
        """
        part = self.area.part if self.area else None
        return make_plan(
            self.scene, self.model.card, _plan_options(self.engine, window), part,
            batch=batch, precision=precision, tiled=self.tile is not None,
        )  # fmt: skip

    def totals(self, plan: Plan) -> PlanTotals:
        """Bytes to read, to write, to hold."""
        return PlanTotals(plan, self.scene, len(self.model.card.channels), self.layers)

    def identity(self, plan: Plan) -> dict[str, str]:
        """Named parts that decide every pixel of the product."""
        return {"plan": plan.identity, **self.given}

    @property
    def given(self) -> dict[str, str]:
        """The part of the identity that is known before window, batch and precision are settled."""
        from citycover.version import __version__

        # Whether the files are the same is told by content, see `Inputs`: a `touch` is no other scene.
        untimed = tuple((path, size, 0) for path, size, _ in self.scene.fingerprints)
        return {
            "model": self.model.sha256,
            "scene": replace(self.scene, fingerprints=untimed).identity,
            "area": self.area.identity if self.area else "",
            "labels": self.labels.identity if self.labels else "",
            "layers": " ".join(layer.name for layer in self.layers),
            "citycover": __version__,
        }


def _plan_options(engine: EngineOptions, window: int | None) -> PlanOptions:
    return PlanOptions(window, engine.trim, engine.feather, engine.block)


def check_engine(engine: EngineOptions, card: ModelCard | None) -> None:
    """Refuse what no product can be computed with on this machine, whatever its scene.

    Args:
        engine: how it is to be computed.
        card: of the model; None: it depends on the scene.

    Raises:
        PlanError: windows or blocks that no product has.
        ConfigError: more than this machine bears.
    """
    _check_blocks(engine)
    engine.check_here()
    if card is not None:
        check_windows(card, _plan_options(engine, engine.window))


def _check_blocks(engine: EngineOptions) -> None:
    block = engine.block
    if block is not None and any(side < 1 or side % CHUNK for side in block):
        near = [max(CHUNK, round(side / CHUNK) * CHUNK) for side in block]
        raise PlanError(
            f"blocks of a product are whole chunks of {CHUNK} px, got engine.block = {list(block)}; the "
            f"nearest is {near}"
        )


def prepare_request(request: MapRequest) -> Job:
    """Understand a request: see `prepare`.

    Raises:
        PlanError: blocks as asked for cannot be stored.
        CitycoverError: anything else the user can mend.
    """
    _check_blocks(request.engine)
    return prepare(
        request.imagery,
        request.model,
        request.where,
        request.engine,
        request.labels,
        request.require_hash,
        request.layers,
        request.tta,
    )


def prepare(
    imagery: Imagery,
    model: str | Sequence[str] | None = None,
    where: Where | None = None,
    engine: EngineOptions | None = None,
    labels: LabelRequest | None = None,
    require_hash: str | None = None,
    layers: Sequence[str] = (),
    tta: str = "none",
) -> Job:
    """Understand a request: model, scene, area, windows, labels.

    Reads metadata, looks at a few numbers, and counts the labels.

    Args:
        imagery: files, and what of them is seen.
        model: file or built-in name, or several with their weights (`a.pt=2`), whose probabilities are
            averaged; None: the first built-in that fits.
        where: the part to map; None: all.
        engine: how it is computed; None: as citycover chooses.
        labels: of the place, to be evidence beside the network; None: it maps alone.
        require_hash: sha256 that the model file must have, or its first 8 digits or more; None: any.
        layers: names of layers beside the usual ones.
        tta: none, flips or d4: how windows are turned, to be mapped once more and averaged.

    Raises:
        CitycoverError: anything the user can mend.
    """
    engine = engine or EngineOptions()
    if engine.workers:
        check_not_reread()
    engine.check_here()
    given = None if model in (None, (), []) else read_map_model(model, tta)
    files = describe_files(imagery.files, imagery.trust)
    tile = where.tile if where else None
    lattice = read_lattice(imagery.laying, imagery.trust)
    file = given or join([(_fitting_builtin(imagery, files, lattice), 1.0)], tta)
    check_map_model(file, require_hash)
    warn_of_random_weights(file.card)
    scene = assemble_scene(
        files,
        file.card,
        bands=imagery.bands,
        nodata=imagery.nodata,
        measure=imagery.measure,
        resample=imagery.resample and tile is None,
        laying=imagery.laying,
        masking=imagery.masking,
        lattice=lattice,
        frame=_frame(tile, lattice_of(imagery.laying, lattice), file.card, engine) if tile else None,
    )
    area = _area(where, scene, file.card, engine) if where else None
    within = scene.grid[area.part.slices] if area else None
    check_promises(scene, within)
    _tell_how_it_is_read(scene, files, imagery, file.card, within)
    change = labels is not None and labels.change
    made = layers_of(file.card.task, layers, change, several=not file.alone)
    job = Job(file, scene, area, engine, layers=made, tile=tile)
    if labels is None:
        return job
    return replace(job, labels=look_at_labels(labels, file.card, job.draft.grid, imagery.trust))


def _tell_how_it_is_read(
    scene: Scene, files: Sequence[FileInfo], imagery: Imagery, card: ModelCard, within: GeoBox | None
) -> None:
    """Say what is done to pixels on their way to the network, and what may be wrong with them.

    Raises:
        SceneError: numbers are of another scale for certain.
    """
    if scene.warps:
        logger.warning(
            "files that lie on another grid are warped onto that of the others: %s", ", ".join(scene.warps)
        )
    if scene.filled:
        logger.warning(
            "nothing in the scene answers to bands of %s; model %s was made to do without them, and gets the "
            "numbers of its card", ", ".join(scene.filled), card.name,
        )  # fmt: skip
    if scene.composed:
        logger.info("%d dates: %s", len(scene.dates), scene.composed)
    if scene.masks:
        logger.info("nodata where %s says so", "; ".join(scene.masks))
    elif unused := unused_masks(files, imagery.masking):
        logger.warning(unused)
    if lost := lost_sources(files):
        logger.warning(lost)
    if scene.conversions:
        logger.info("numbers are read in the unit of the model: %s", "; ".join(scene.conversions))
    hints = Hints()
    refuse_masks(scene, within, hints)
    if same := _given_twice(scene):
        logger.warning(same)
    if other_scale := check_numbers(scene, card, within, hints):
        logger.warning(other_scale)
    if imagery.nodata is None and (collar := _warn_of_collar(scene, hints, within)):
        logger.warning(collar)


def _given_twice(scene: Scene) -> str | None:
    """A warning where one band of the scene stands for several of the model, else None."""
    names: dict[tuple[str, int], list[str]] = {}
    for band in (band for group in scene.groups for band in group.bands):
        names.setdefault((band.path, band.index), []).append(band.name)
    said = [
        f"band {index} of {Path(path).name} as {', '.join(some)}"
        for (path, index), some in names.items()
        if len(some) > 1
    ]
    if not said:
        return None
    return f"the model is given {'; '.join(said)}: whatever it tells by their difference it cannot tell"


def warn_of_random_weights(card: ModelCard) -> None:
    """Say it where nothing was learned."""
    if card.untrained:
        logger.warning("model %s has random weights: its map means nothing; give it weights", card.name)


def _area(where: Where, scene: Scene, card: ModelCard, engine: EngineOptions) -> Area | None:
    if where.tile is not None:
        before, _ = tile_reach(where.tile.size, card, _plan_options(engine, engine.window))
        part = Window(before, before, where.tile.size, where.tile.size)
        inside = None if where.aoi is None else read_area(where.aoi, scene.grid).geometry
        return Area(part, inside, scene.grid.transform)
    if where.aoi is not None:
        return read_area(where.aoi, scene.grid)
    return area_of_box(where.bbox, scene.grid) if where.bbox is not None else None


def windows_of_tile(tile: Tile, lattice: GeoBox, card: ModelCard, engine: EngineOptions) -> Window:
    """All pixels of the lattice that the windows of a tile look at.

    Raises:
        PlanError: no window fits the tile.
        ConfigError: the lattice is none that tiles are cut from.
    """
    before, after = tile_reach(tile.size, card, _plan_options(engine, engine.window))
    at, side = tile.window(lattice), before + tile.size + after
    return Window(at.row - before, at.col - before, side, side)


def _frame(tile: Tile, lattice: GeoBox, card: ModelCard, engine: EngineOptions) -> GeoBox:
    seen = windows_of_tile(tile, lattice, card, engine)
    corner = Affine.translation(seen.col, seen.row)
    return GeoBox((seen.height, seen.width), lattice.transform * corner, lattice.crs)


def _fitting_builtin(imagery: Imagery, files: Sequence[FileInfo], lattice: GeoBox | None) -> ModelFile:
    """The first built-in model that takes the scene as it is."""
    for info in files:
        if info.obstacle:
            raise SceneError(info.obstacle)
    reasons = []
    for model in read_builtins():
        why = fits(
            model.card, files,
            bands=imagery.bands, laying=imagery.laying, masking=imagery.masking, lattice=lattice,
        )  # fmt: skip
        if why is None:
            logger.info("no --model given: %s fits the bands of the scene", model.card.name)
            return model
        reasons.append((model.card, why))
    # What is wrong is told of the model that comes nearest; of the others it would be the same once more.
    images, _ = split_masks(files, imagery.masking)
    nearest, why = max(reasons, key=lambda reason: _nearness(reason[0], imagery.bands, images))
    if isinstance(why, LayoutError):  # no model would mend it
        raise why
    raise SceneError(
        f"no built-in model fits the scene; {nearest.name} comes nearest: {why}; or give --model"
    )


def _nearness(card: ModelCard, bands: Sequence[str] | None, files: Sequence[FileInfo]) -> tuple[bool, float]:
    """How nearly a model fits: it takes such numbers; bands are found for it, or as many as are named."""
    needed = sum(len(group.bands) for group in card.groups)
    takes = {dtype for group in card.groups for dtype in group.dtypes}
    typed = all(dtype in takes for info in files for dtype in info.dtypes)
    return typed, answered(card, files) / needed if bands is None else -abs(needed - len(bands))


def _warn_of_collar(scene: Scene, hints: Hints, within: GeoBox | None) -> str | None:
    """A warning where nodata seems to be hidden as an untagged constant, else None."""
    value, share = constant_border(scene, hints, within)
    if value is None:
        return None
    return (
        f"about {share:.0%} of the scene is {value:g} in every band and touches its border, and no nodata is "
        f"declared; if that is nodata, give --nodata {value:g}"
    )


def area_mask(job: Job, plan: Plan) -> AreaMask | None:
    """What lies inside the area of interest; None where all of the plan does."""
    return job.area.mask(plan.origin) if job.area and job.area.geometry is not None else None
