"""From what a user names (images, labels, legends) to what can be learned from: pairs and a legend."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from citycover.classes.legend import Legend, read_legend
from citycover.errors import ConfigError
from citycover.evidence.catalogue import Credit
from citycover.job.request import Imagery
from citycover.model.card import BandGroup
from citycover.scene.file import check_class_file
from citycover.scene.scene import Scene
from citycover.scene.trust import Trust
from citycover_models.data.describe import ALL, describe_images, group_of
from citycover_models.data.label_checks import check_labels
from citycover_models.data.labels import LabelRaster
from citycover_models.data.named import FoundLabels, found_labels, legends_by_name
from citycover_models.data.pairs import ImageAndLabels, Pair
from citycover_models.data.placing import place

logger = logging.getLogger(__name__)

_YEARS_APART = 3


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
    scenes = describe_images(items, seen)
    pairs, credited = [], dict[Credit, None]()
    for item, scene in zip(items, scenes, strict=True):
        sheets = found_labels(item, legends, scene.grid)
        credited.update((s.credit, None) for s in sheets if s.credit is not None)
        pairs.append(labelled(item.image, scene, sheets, learned, seen.trust, agree=agree))
    gsds = [scene.gsd for scene in scenes]
    judged = _judged(items, scenes, learned, truth_legend, seen.trust)
    return TrainingSet(
        tuple(pairs), learned, group_of(scenes), (min(gsds), max(gsds)), tuple(credited), judged
    )


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
        labelled(item.image, scene, [FoundLabels(truth, legend)], learned, trust, teaches=False)
        for item, scene, truth in true
    )


def labelled(
    image: str,
    scene: Scene,
    sheets: Sequence[FoundLabels],
    learned: Legend,
    trust: Trust,
    *,
    agree: int = 1,
    teaches: bool = True,
) -> Pair:
    """An image with its labels, which were looked at first; warns of what is odd about them.

    Args:
        image: as it was named.
        scene: what it is.
        sheets: its labels.
        learned: legend to learn.
        trust: which files labels may name.
        agree: label rasters that must agree.
        teaches: it is learned from them; else images are judged by them, and holes are no matter.

    Raises:
        ConfigError: they do not fit each other, the legend that is learned, or the image.
    """
    for sheet in sheets:
        check_class_file(sheet.path, "labels", trust)
    rasters = tuple(LabelRaster.of(sheet.path, read_legend(sheet.legend), learned) for sheet in sheets)
    if agree > len(rasters):
        raise ConfigError(f"--agree {agree} needs as many label rasters; {image} has {len(rasters)}")
    odd = check_labels(rasters, scene.grid, image)  # which raises where they lie elsewhere, in any case
    for warning in (odd if teaches else []) + _dates(scene, image, sheets, trust):
        logger.warning("%s", warning)
    return Pair(scene, rasters, agree)


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
