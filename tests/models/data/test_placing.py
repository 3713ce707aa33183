"""Chips without a georeference: labels lie on them pixel by pixel."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray

from citycover.errors import ConfigError
from citycover.geometry.overlap import find_overlaps
from citycover.geometry.window import Window
from citycover_models.data.layouts import read_folder
from citycover_models.data.pairs import ImageAndLabels
from citycover_models.data.placing import place
from citycover_models.data.prepare import prepare_training_set
from citycover_models.data.sources import find_sources
from citycover_models.training.setup import stamp_of

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def write_png(path: Path, pixels: NDArray[np.uint8]) -> str:
    """(band, y, x) as a PNG without a place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "PNG", "count": len(pixels), "height": pixels.shape[1], "width": pixels.shape[2]}
    with rasterio.open(path, "w", dtype="uint8", **profile) as file:
        file.write(pixels)
    return str(path)


@pytest.fixture
def chips(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number, shape in enumerate([(64, 48), (32, 80), (64, 48)]):
        images, labels = (tmp_path / "train" / kind / f"chip {number}.png" for kind in ("images", "labels"))
        write_png(images, rng.integers(0, 255, (3, *shape), dtype=np.uint8))
        write_png(labels, rng.integers(0, 8, (1, *shape), dtype=np.uint8))
    return tmp_path


def test_labels_of_one_of_several_images_that_lie_nowhere_are_not_those_of_all(chips: Path) -> None:
    """Of one size, so that each label would lie on each image."""
    images, labels = (
        [str(chips / "train" / kind / f"chip {number}.png") for number in (0, 2)]
        for kind in ("images", "labels")
    )
    for given in (labels, labels[:1]):
        with pytest.raises(ConfigError, match=r"image .*chip 0.png has no georeference.*or a --list"):
            find_sources(images=images, labels=given)
    (alone,) = find_sources(images=images[:1], labels=labels).items
    assert alone.labels == tuple(labels), "they vote, or agree"
    (chips / "list.csv").write_text(
        "image_fn,label_fn\n" + "".join(f"{image},{labels[0]}\n" for image in images)
    )
    assert len(find_sources(listing=chips / "list.csv").items) == 2, "a list says it"


def test_labels_lie_pixel_on_pixel(chips: Path, caplog: pytest.LogCaptureFixture) -> None:
    listing = read_folder(chips)
    with caplog.at_level(logging.WARNING):
        training_set = prepare_training_set(listing.items, [listing.legend or ""], None)
    assert "3 of 3 images have no georeference" in caplog.text
    assert not any(find_overlaps([pair.scene.grid for pair in training_set.pairs]))
    for pair, item in zip(training_set.pairs, listing.items, strict=True):
        whole = Window(0, 0, *pair.shape)
        with rasterio.open(item.labels[0]) as file:
            channels = np.array([dict(pair.labels[0].ranks)[code] for code in range(8)], np.uint8)
            assert (pair.label_reader().read(whole) == channels[file.read(1)]).all()
        values, valid = np.empty((*pair.shape, 3), np.uint8), np.empty(pair.shape, np.bool_)
        pair.image_reader().read_into(whole, values, valid)
        with rasterio.open(item.image) as file:
            assert valid.all() and (values.transpose(2, 0, 1) == file.read()).all()
    assert training_set.native_gsd == pytest.approx(1, rel=0.01)
    assert [pair.name for pair in training_set.pairs] == [item.image for item in listing.items]
    assert set(training_set.pairs[0].paths) == {listing.items[0].image, *listing.items[0].labels}
    assert all(stamp_of(path) for path in training_set.pairs[0].paths), "a changed file is seen"


def test_labels_of_other_pixels_are_refused(chips: Path) -> None:
    image = str(chips / "train" / "images" / "chip 0.png")
    question = write_png(chips / "what?.png", np.zeros((1, 64, 48), np.uint8))
    with pytest.raises(ConfigError, match="question mark"):
        place([ImageAndLabels(image, (question,))])
    small = write_png(chips / "small.png", np.zeros((1, 32, 32), np.uint8))
    with pytest.raises(ConfigError, match=r"48 x 64 px; label raster .*small.png has 32 x 32 px"):
        place([ImageAndLabels(image, (small,))])
    placed = str(chips / "placed.tif")
    profile = {"driver": "GTiff", "height": 64, "width": 48, "count": 1, "dtype": "uint8"}
    with rasterio.open(placed, "w", crs="EPSG:32633", transform=Affine(1, 0, 5e5, 0, -1, 5e6), **profile):
        pass
    with pytest.raises(ConfigError, match="has one; needed are labels of the same pixels, or an image with"):
        place([ImageAndLabels(image, (placed,))])
    assert place([ImageAndLabels(placed, (image,))]) == [ImageAndLabels(placed, (image,))]
