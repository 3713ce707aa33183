"""From what a user names (images, labels, legends) to what can be learned from: pairs and a legend."""

from __future__ import annotations

import contextlib
import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from citycover.classes.legend import Legend, read_legend
from citycover.classes.raster import ClassRaster
from citycover.errors import ConfigError, SceneError
from citycover.evidence.catalogue import Credit
from citycover.job.request import Imagery
from citycover.model.card import BandGroup, ModelCard
from citycover.scene.assemble import describe_scene
from citycover.scene.file import check_class_file
from citycover.scene.scene import Scene
from citycover.scene.trust import Trust
from citycover_models.data.label_checks import ElsewhereError, check_labels, footprint
from citycover_models.data.labels import LabelRaster
from citycover_models.data.named import FoundLabels, found_labels, legends_by_name
from citycover_models.data.pairs import ImageAndLabels, Pair, plain_path
from citycover_models.data.placing import bare_size, place
from citycover_models.imagery.aerial import CHESAPEAKE_RGBN, POLAND_RGB

logger = logging.getLogger(__name__)

ALL = Imagery(())
"""Images as they are."""

_YEARS_APART = 3

_AERIAL_NAMES = {"red": ("R",), "green": ("G",), "blue": ("B",), "nir": ("N", "NIR")}


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """What there is to learn, and in which classes."""

    pairs: tuple[Pair, ...]
    legend: Legend
    """Classes that are learned."""
    group: BandGroup
    """Bands of all images, as the card of the trained model will name them."""
    gsd: tuple[float, float]
    """Smallest and largest ground sample distance of the images, metres."""
    credits: tuple[Credit, ...] = ()
    """Of labels that were asked for by name."""
    judged: tuple[Pair, ...] = ()
    """Images with a finer truth: the finished network is judged by it, and nothing is learned from it."""
    target: TargetDomain | None = None
    """What will be mapped, where that is another sensor or place than what was labelled."""

    @property
    def native_gsd(self) -> float:
        """Middle of the images' ground sample distances, metres."""
        return middle(self.gsd)


@dataclass(frozen=True, slots=True)
class TargetDomain:
    """Images of another sensor or place. Nothing is learned from labels of theirs."""

    pairs: tuple[Pair, ...]
    """Without labels."""
    group: BandGroup
    """Their bands: those of the source, by the same names."""
    gsd: tuple[float, float]
    """Smallest and largest, metres."""
    judged: tuple[Pair, ...] = ()
    """Those of which there are labels, with them: the maps are judged by these, and by nothing else."""

    @property
    def native_gsd(self) -> float:
        """Middle of the ground sample distances, metres."""
        return middle(self.gsd)


def middle(gsd: tuple[float, float]) -> float:
    """Geometric mean of two distances."""
    return math.sqrt(gsd[0] * gsd[1])


def prepare_training_set(
    items: Sequence[ImageAndLabels],
    legends: Sequence[str],
    to: str | None,
    *,
    agree: int = 1,
    seen: Imagery = ALL,
    truth_legend: str | None = None,
) -> TrainingSet:
    """Describe images, join their labels to the legend that is learned, and look at every code first.

    Args:
        items: images and labels; a label raster may be a product by name (`worldcover`).
        legends: legend of each label raster of an item, in order, or one for all; empty: products by name
            know theirs.
        to: legend to learn; None: that of the labels.
        agree: label rasters that must agree on a pixel.
        seen: how images are read; its files do not matter. Without bands: red, green, blue and, where all
            images have it, near infrared.
        truth_legend: legend of the finer truths that items have; None: they are not looked at.

    Raises:
        ConfigError: labels and legends do not fit each other or the images.
        SceneError: an image cannot be used.
        MachineError: a product cannot be fetched.
    """
    if not items:
        raise ConfigError("there is nothing to learn from; give --image and --labels, --list or --folder")
    named = legends or legends_by_name(items[0].labels)
    learned = read_legend(to or named[0])
    learned.check_product()
    items = place(items)
    scenes = _describe(items, seen)
    pairs, credited = [], dict[Credit, None]()
    for item, scene in zip(items, scenes, strict=True):
        sheets = found_labels(item, legends, scene.grid)
        credited.update((s.credit, None) for s in sheets if s.credit is not None)
        pairs.append(_labelled(item.image, scene, sheets, learned, agree, seen.trust))
    gsds = [scene.gsd for scene in scenes]
    judged = _judged(items, scenes, learned, truth_legend, seen.trust)
    return TrainingSet(tuple(pairs), learned, _group(scenes), (min(gsds), max(gsds)), tuple(credited), judged)


def prepare_targets(
    training_set: TrainingSet,
    targets: Sequence[ImageAndLabels],
    legends: Sequence[str] = (),
    *,
    seen: Imagery = ALL,
) -> TrainingSet:
    """Join images of the target domain to a training set.

    Args:
        training_set: of the source.
        targets: images; labels are for judging alone, and those that do not lie on an image are not of it.
        legends: of these labels, as in `prepare_training_set`.
        seen: how targets are read; bands in the order of the source's bands, without them the source's names.

    Raises:
        ConfigError: labels and legends do not fit each other or any target.
        SceneError: a target cannot be used, or lacks bands of the source.
    """
    if not targets:
        raise ConfigError("there is nothing to adapt to; give --target, or a --folder with two domains")
    _check_whose(targets)
    items = place(targets)
    wanted = training_set.group.names
    card = None if seen.bands is not None else _any_card(training_set.group)
    scenes = [_target_scene(item, card, seen, wanted) for item in items]
    pairs = tuple(Pair(scene, ()) for scene in scenes)
    judged = _judged_targets(items, scenes, legends, training_set.legend, seen.trust)
    gsds = [scene.gsd for scene in scenes]
    domain = TargetDomain(pairs, _group(scenes), (min(gsds), max(gsds)), judged)
    return replace(training_set, target=domain)


def _check_whose(targets: Sequence[ImageAndLabels]) -> None:
    """Raise ConfigError if labels are of several targets that do not say where they lie: any would do."""
    shared = Counter(label for item in targets for label in item.labels)
    for item in targets:
        label = next((label for label in item.labels if shared[label] > 1), None)
        if label is not None and bare_size(item.image) is not None:
            raise ConfigError(
                f"target {item.image} has no georeference, so nothing says whether {label} is of it or of "
                "another target; give one target, or a --folder where images and labels are named alike"
            )


def _judged_targets(
    items: Sequence[ImageAndLabels],
    scenes: Sequence[Scene],
    legends: Sequence[str],
    learned: Legend,
    trust: Trust,
) -> tuple[Pair, ...]:
    """Targets with the labels that lie on them; those that none lies on are left out.

    Raises:
        ConfigError: labels lie on no target, or say nothing of one.
    """
    judged: list[Pair] = []
    lying: dict[str, bool] = {}
    silent: ElsewhereError | None = None
    for item, scene in zip(items, scenes, strict=True):
        sheets = found_labels(item, legends, scene.grid) if item.labels else ()
        here = [sheet for sheet in sheets if _lies_on(sheet, scene, trust)]
        lying |= {s.path: s in here or lying.get(s.path, False) for s in sheets}
        if not here:
            continue
        try:
            judged.append(_labelled(item.image, scene, here, learned, 1, trust))
        except ElsewhereError as error:  # nodata all over it, as a mosaic of labels may be
            silent = silent or error
    if lost := [plain_path(path) for path, lies in lying.items() if not lies]:
        raise ConfigError(
            f"labels {', '.join(lost)} lie on no target; needed are labels of the same place as one of "
            f"{', '.join(plain_path(item.image) for item in items)}; check CRS and extent with `citycover "
            "inspect`, or leave them out"
        )
    if silent and not judged:
        raise silent
    if judged:
        logger.warning(
            "labels of %d of %d target images are given: maps are judged by them, and nothing is learned "
            "from them",
            len(judged), len(items),
        )  # fmt: skip
    return tuple(judged)


def _lies_on(sheet: FoundLabels, scene: Scene, trust: Trust) -> bool:
    """Whether a label raster, which was looked at first, reaches into an image."""
    check_class_file(sheet.path, "labels", trust)
    with ClassRaster(sheet.path, "labels") as raster:
        return not footprint(raster, scene.grid).is_empty


def _judged(
    items: Sequence[ImageAndLabels],
    scenes: Sequence[Scene],
    learned: Legend,
    legend: str | None,
    trust: Trust,
) -> tuple[Pair, ...]:
    """Images with the finer truth that they have, if its legend is known.

    Raises:
        ConfigError: there is a legend and no truth.
    """
    true = [(item, scene, item.truth) for item, scene in zip(items, scenes, strict=True) if item.truth]
    if legend is None:
        if true:
            logger.warning(
                "%d image(s) have a finer truth, which is left alone: name its legend with --truth-legend "
                "and the finished network is judged by it",
                len(true),
            )
        return ()
    if not true:
        raise ConfigError(
            f"got --truth-legend {legend} and no image has a truth; needed is a column gt_label_fn in "
            "--list, or a --folder with one; leave the option out otherwise"
        )
    return tuple(
        _labelled(item.image, scene, [FoundLabels(truth, legend)], learned, 1, trust)
        for item, scene, truth in true
    )


def _labelled(
    image: str, scene: Scene, sheets: Sequence[FoundLabels], learned: Legend, agree: int, trust: Trust
) -> Pair:
    """An image with its labels, which were looked at first; warns of what is odd about them."""
    for sheet in sheets:
        check_class_file(sheet.path, "labels", trust)
    rasters = tuple(LabelRaster.of(sheet.path, read_legend(sheet.legend), learned) for sheet in sheets)
    if agree > len(rasters):
        raise ConfigError(f"--agree {agree} needs as many label rasters; {image} has {len(rasters)}")
    for warning in check_labels(rasters, scene.grid, image) + _dates(scene, image, sheets, trust):
        logger.warning("%s", warning)
    return Pair(scene, rasters, agree)


def _target_scene(
    item: ImageAndLabels,
    card: ModelCard | None,
    seen: Imagery,
    wanted: Sequence[str],
) -> Scene:
    """A target as a scene of the source's bands."""
    try:
        scene = describe_image(item.files, card, seen)
    except SceneError:
        there = _bands_of(item, seen, f"target {item.image}: ")
        raise SceneError(
            f"target {item.image} has {', '.join(there)}; both domains need the same bands, here "
            f"{', '.join(wanted)}; give the files that hold them, or name bands that both have with --bands"
        ) from None
    if len(scene.groups) != 1 or len(scene.groups[0].bands) != len(wanted):
        raise SceneError(
            f"target {item.image} has {sum(len(g.bands) for g in scene.groups)} bands on {len(scene.groups)} "
            f"grid(s); the source has {len(wanted)}: {', '.join(wanted)}; name the same ones for both with "
            "--bands"
        )
    return scene


def _bands_of(item: ImageAndLabels, seen: Imagery, whose: str = "") -> list[str]:
    """Names of the bands that an image has.

    Raises:
        SceneError: it cannot be used at all: then it is not its bands that are wrong.
    """
    try:
        scene = describe_image(item.files, None, replace(seen, bands=None))
    except SceneError as error:
        raise SceneError(f"{whose}{error}") from None
    return [band.name for group in scene.groups for band in group.bands]


def describe_image(files: Sequence[str], card: ModelCard | None, seen: Imagery) -> Scene:
    """An image as a scene: as it is, or with the bands of a card.

    Args:
        files: of the image.
        card: whose bands are taken; None: all, or those that `seen` names.
        seen: how it is read; its files do not matter.

    Raises:
        ConfigError: dates are to be averaged after a network.
    """
    if seen.laying.composite == "mean-probability":
        raise ConfigError(
            "--composite mean-probability averages what a network says of several dates when it maps; one "
            "that learns sees one image: give --composite latest, median or best, or one date"
        )
    return describe_scene(
        files,
        card,
        bands=seen.bands,
        nodata=seen.nodata,
        measure=seen.measure,
        laying=seen.laying,
        masking=seen.masking,
        trust=seen.trust,
    )


def _describe(items: Sequence[ImageAndLabels], seen: Imagery) -> list[Scene]:
    """Scenes of the same bands: as named, or else all of RGBN, or else all of RGB."""
    if seen.bands is not None:
        scenes = [describe_image(item.files, None, seen) for item in items]
    else:
        scenes = _with_bands(items, CHESAPEAKE_RGBN.group, seen)
        if len(scenes) < len(items):
            scenes = _with_bands(items, POLAND_RGB.group, seen)
    if len(scenes) < len(items):
        lacking = items[len(scenes)]
        raise SceneError(
            f"{lacking.image} has {', '.join(_bands_of(lacking, seen))}, and not red, green and blue; give "
            "the files that hold them, or name the bands to learn from with --bands"
        )
    for scene, item in zip(scenes, items, strict=True):
        if len(scene.groups) != 1:
            raise SceneError(
                f"bands of {item.image} lie on {len(scene.groups)} grids; these methods take one; choose "
                "bands of one resolution with --bands"
            )
        if len(scene.groups[0].bands) != len(scenes[0].groups[0].bands):
            raise SceneError(
                f"{item.image} has {len(scene.groups[0].bands)} bands and {items[0].image} "
                f"{len(scenes[0].groups[0].bands)}; name the same ones for all with --bands"
            )
    return scenes


def _with_bands(items: Sequence[ImageAndLabels], group: BandGroup, seen: Imagery) -> list[Scene]:
    """Scenes of these bands, up to the first image that lacks one."""
    card, scenes = _any_card(group), list[Scene]()
    with contextlib.suppress(SceneError):
        for item in items:
            scenes.append(describe_image(item.files, card, seen))
    return scenes


def _any_card(group: BandGroup) -> ModelCard:
    """A card that asks for bands by name and for nothing else."""
    open_group = group.model_copy(
        update={"dtypes": ("uint8", "uint16", "int16", "float32"), "value_range": None, "fill": ()}
    )
    return ModelCard(
        name="training",
        groups=(open_group,),
        window={"size": 64},
        trim=0,
        feather=0,
        legend="landcover5",
    )


def _group(scenes: Sequence[Scene]) -> BandGroup:
    """Bands as a card names them: those of the first image, in its order."""
    # The first is what a card calls its data type; every network takes float32 as well.
    types = [*sorted({scene.groups[0].dtype for scene in scenes} - {"float32"}), "float32"]
    names = [band.name for band in scenes[0].groups[0].bands]
    bands = tuple((name, *_AERIAL_NAMES.get(name, ())) for name in names)
    return BandGroup(bands=bands, dtypes=tuple(types))


def _dates(scene: Scene, image: str, sheets: Sequence[FoundLabels], trust: Trust) -> list[str]:
    """A warning for each label raster that says it is years older or younger than its image."""
    if scene.time is None:
        return []
    seen = datetime.fromisoformat(scene.time).date()
    warnings = []
    for sheet in sheets:
        time = sheet.time(trust)
        years = 0 if time is None else abs((time - seen).days) / 365.25
        if years >= _YEARS_APART:
            warnings.append(
                f"labels {sheet.path} are {years:.0f} years away from {image}; what changed is noise"
            )
    return warnings
