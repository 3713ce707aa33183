"""What a training is pointed at: images with labels, a list of them, or a folder in a published layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from citycover.errors import ConfigError
from citycover.job.request import Imagery
from citycover_models.data.layouts import LAYOUTS, Listing, read_folder, read_list
from citycover_models.data.pairs import ImageAndLabels, files_of
from citycover_models.data.placing import check_whose
from citycover_models.data.prepare import TrainingSet, prepare_training_set
from citycover_models.data.prepare_targets import prepare_targets


def find_sources(
    *,
    images: Sequence[str] = (),
    labels: Sequence[str] = (),
    listing: Path | None = None,
    folder: Path | None = None,
    layout: str | None = None,
    targets: Sequence[str] = (),
    target_labels: Sequence[str] = (),
) -> Listing:
    """Images to learn from, and those of the target domain if there is one.

    Args:
        images: files; the bands of one image may lie in several, joined by commas.
        labels: of all images, in order.
        listing: a list of images and labels instead.
        folder: a folder in a published layout instead.
        layout: of the folder; None: it is found out.
        targets: images of the target domain.
        target_labels: theirs, to judge by.

    Raises:
        ConfigError: not exactly one of the three ways, something of it is missing, or nothing says which
            labels are of which image.
    """
    found = _sources(images, labels, listing, folder, layout)
    if found.targets and (targets or target_labels):
        raise ConfigError("the --folder holds both domains; leave --target and --target-labels out")
    if target_labels and not targets:
        raise ConfigError("got --target-labels without --target; give the images that they are of")
    if not targets:
        return found
    return replace(found, targets=tuple(_named(name, target_labels) for name in targets))


def _sources(
    images: Sequence[str],
    labels: Sequence[str],
    listing: Path | None,
    folder: Path | None,
    layout: str | None,
) -> Listing:
    if sum((bool(images or labels), listing is not None, folder is not None)) != 1:
        raise ConfigError("give --image with --labels, or --list, or --folder: exactly one of the three")
    if layout is not None and folder is None:
        raise ConfigError(
            f"got --layout {layout} without --folder, whose layout it is; give one, or leave it out"
        )
    if listing is not None:
        return read_list(listing)
    if folder is not None:
        if layout is not None and layout not in LAYOUTS:
            raise ConfigError(f"--layout takes {', '.join(LAYOUTS)}, got {layout!r}")
        return read_folder(folder, layout)
    if images and labels:
        items = tuple(_named(name, labels) for name in images)
        check_whose(items, "image")
        return Listing(items, None)
    raise ConfigError("training needs both --image and --labels; give the one that is missing")


def _named(image: str, labels: Sequence[str]) -> ImageAndLabels:
    """An image, whose bands may lie in several files."""
    first, *rest = files_of(image, ",")
    return ImageAndLabels(first, tuple(labels), None, tuple(rest))


def prepare_sources(
    found: Listing,
    legends: Sequence[str],
    to: str | None,
    *,
    agree: int,
    seen: Imagery,
    truth_legend: str | None = None,
) -> TrainingSet:
    """Images with coarse labels as a training takes them, and the domain that is mapped where there is one.

    Args:
        found: what the training is pointed at.
        legends: of the labels; none: that of the layout.
        to: legend to learn; None: that of the labels.
        agree: label rasters that must agree on a pixel.
        seen: how images are read; its files do not matter.
        truth_legend: legend of finer truths that images have, to judge by.

    Raises:
        CitycoverError: anything that the user can mend.
    """
    legends = list(legends) or ([found.legend] if found.legend else [])
    training_set = prepare_training_set(
        found.items, legends, to, agree=agree, seen=seen, truth_legend=truth_legend
    )
    if not found.targets:
        return training_set
    return prepare_targets(training_set, found.targets, legends, seen=seen)
