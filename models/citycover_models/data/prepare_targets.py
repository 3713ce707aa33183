"""From the images of another sensor or place, and labels that some of them have, to a target domain."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from citycover.classes.legend import Legend
from citycover.classes.raster import ClassRaster
from citycover.errors import ConfigError, SceneError
from citycover.job.request import Imagery
from citycover.model.card import ModelCard
from citycover.scene.file import check_class_file
from citycover.scene.scene import Scene
from citycover.scene.trust import Trust
from citycover_models.data.describe import ALL, any_card, bands_of, describe_image, group_of
from citycover_models.data.label_checks import ElsewhereError, footprint
from citycover_models.data.named import FoundLabels, found_labels
from citycover_models.data.pairs import ImageAndLabels, Pair, plain_path
from citycover_models.data.placing import check_whose, place
from citycover_models.data.prepare import TargetDomain, TrainingSet, labelled

logger = logging.getLogger(__name__)


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
    check_whose(targets, "target")
    items = place(targets)
    wanted = training_set.group.names
    card = None if seen.bands is not None else any_card(training_set.group)
    scenes = [_target_scene(item, card, seen, wanted) for item in items]
    pairs = tuple(Pair(scene, ()) for scene in scenes)
    judged = _judged_targets(items, scenes, legends, training_set.legend, seen.trust)
    gsds = [scene.gsd for scene in scenes]
    domain = TargetDomain(pairs, group_of(scenes), (min(gsds), max(gsds)), judged)
    return replace(training_set, target=domain)


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
            judged.append(labelled(item.image, scene, here, learned, trust, teaches=False))
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


def _target_scene(
    item: ImageAndLabels,
    card: ModelCard | None,
    seen: Imagery,
    wanted: Sequence[str],
) -> Scene:
    """A target as a scene of the source's bands."""
    try:
        scene = describe_image(item.files, card, seen)
    except SceneError as error:
        there = bands_of(item, seen, f"target {item.image}: ")
        raise SceneError(
            f"target {item.image} has {', '.join(there)}: {error}; both domains need the same bands, here "
            f"{', '.join(wanted)}; name bands that both have with --bands"
        ) from None
    if len(scene.groups) != 1 or len(scene.groups[0].bands) != len(wanted):
        raise SceneError(
            f"target {item.image} has {sum(len(g.bands) for g in scene.groups)} bands on {len(scene.groups)} "
            f"grid(s); the source has {len(wanted)}: {', '.join(wanted)}; name the same ones for both with "
            "--bands"
        )
    return scene
