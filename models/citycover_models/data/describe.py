"""Images that are learned from, as scenes of the same bands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from citycover.errors import ConfigError, SceneError
from citycover.job.request import Imagery
from citycover.model.card import BandGroup, ModelCard
from citycover.scene.assemble import describe_scene
from citycover.scene.scene import Scene
from citycover_models.data.pairs import ImageAndLabels
from citycover_models.imagery.aerial import CHESAPEAKE_RGBN, POLAND_RGB

ALL = Imagery(())
"""Images as they are."""

_AERIAL_NAMES = {"red": ("R",), "green": ("G",), "blue": ("B",), "nir": ("N", "NIR")}


def bands_of(item: ImageAndLabels, seen: Imagery, whose: str = "") -> list[str]:
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
        SceneError: it cannot be used, or lacks the bands.
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


def describe_images(items: Sequence[ImageAndLabels], seen: Imagery) -> list[Scene]:
    """Scenes of the same bands: as named, or else all of RGBN, or else all of RGB."""
    if seen.bands is not None:
        scenes = [describe_image(item.files, None, seen) for item in items]
    else:
        scenes = []
        for statistics in (CHESAPEAKE_RGBN, POLAND_RGB):
            card = any_card(statistics.group)
            try:
                scenes = [describe_image(item.files, card, seen) for item in items]
                break
            except SceneError as error:
                if statistics is POLAND_RGB:
                    for item in items:  # what cannot be used at all says so, not that bands are missing
                        bands_of(item, seen)
                    raise SceneError(f"{error}; or name the bands to learn from with --bands") from None
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


class _TrainingCard(ModelCard):
    """Stands for a training: there is no model yet."""

    instead: ClassVar[str] = "leave the image out"

    @property
    def called(self) -> str:
        return "this training"


def any_card(group: BandGroup) -> ModelCard:
    """A card that asks for bands by name and for nothing else."""
    open_group = group.model_copy(
        update={"dtypes": ("uint8", "uint16", "int16", "float32"), "value_range": None, "fill": ()}
    )
    return _TrainingCard(
        name="training",
        groups=(open_group,),
        window={"size": 64},
        trim=0,
        feather=0,
        legend="landcover5",
    )


def group_of(scenes: Sequence[Scene]) -> BandGroup:
    """Bands as a card names them: those of the first image, in its order."""
    # The first is what a card calls its data type; every network takes float32 as well.
    types = [*sorted({scene.groups[0].dtype for scene in scenes} - {"float32"}), "float32"]
    names = [band.name for band in scenes[0].groups[0].bands]
    bands = tuple((name, *_AERIAL_NAMES.get(name, ())) for name in names)
    return BandGroup(bands=bands, dtypes=tuple(types))
