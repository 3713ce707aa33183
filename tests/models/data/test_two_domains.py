"""Layouts with two domains, chips at other sizes and in other numbers, and plans of targets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine, from_origin

from citycover.errors import ConfigError, SceneError
from citycover.job.request import Imagery
from citycover_models.data.chips import resized
from citycover_models.data.labels import IGNORE
from citycover_models.data.layouts import read_folder
from citycover_models.data.prepare import TrainingSet
from citycover_models.data.sources import find_sources, prepare_sources


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_two_domains_are_told_by_their_folders(tmp_path: Path) -> None:
    made = make(
        tmp_path, "src_domain/images/a.tif", "src_domain/masks/a.tif", "tgt_domain/images/b.tif",
    )  # fmt: skip
    found = read_folder(made)
    assert found.legend == "loveda7" and found.items[0].labels == (str(made / "src_domain/masks/a.tif"),)
    assert [(item.image, item.labels) for item in found.targets] == [
        (str(made / "tgt_domain/images/b.tif"), ())
    ]
    make(made, "tgt_domain/masks/b.tif", "tgt_domain/images/c.tif")
    assert [item.labels for item in read_folder(made).targets] == [
        (str(made / "tgt_domain/masks/b.tif"),),
        (),
    ]
    make(made, "src_domain/images/b.tif")
    with pytest.raises(ConfigError, match=r"b.tif has no label in .*src_domain/masks"):
        read_folder(made)


def test_labels_that_are_named_as_no_target_are_refused(tmp_path: Path) -> None:
    made = make(
        tmp_path, "src_domain/images/a.tif", "src_domain/masks/a.tif", "tgt_domain/images/b.tif",
        "tgt_domain/masks/a.tif",
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"no label in .*tgt_domain/masks is named as an image"):
        read_folder(made)


def test_gaofen_and_sentinel_are_source_and_target(tmp_path: Path) -> None:
    made = make(tmp_path, "gaofen/image/a.tif", "gaofen/label/a.tif", "sentinel/image/b.tif")
    found = read_folder(made)
    assert found.legend == "daspm5" and found.targets[0].image == str(made / "sentinel/image/b.tif")


def test_loveda_is_asked_for_its_direction(tmp_path: Path) -> None:
    names = [f"{p}/{c}/{k}/1.png" for p in ("Train", "Val") for c in ("Urban", "Rural")
             for k in ("images_png", "masks_png")]  # fmt: skip
    made = make(tmp_path, *names)
    with pytest.raises(ConfigError, match="two directions; give --layout loveda-to-urban or loveda-to-rural"):
        read_folder(made)
    urban = read_folder(made, "loveda-to-urban")
    assert "Train/Rural" in urban.items[0].image and "Val/Urban" in urban.targets[0].image


def test_swapped_and_empty_folders_are_said(tmp_path: Path) -> None:
    swapped = make(
        tmp_path / "swapped", "src_domain/images/a.tif", "tgt_domain/images/b.tif", "tgt_domain/masks/b.tif",
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"the source is the domain with labels: if the two.*swapped"):
        read_folder(swapped)
    empty = make(
        tmp_path / "empty", "src_domain/images/a.tif", "src_domain/masks/a.tif", "tgt_domain/notes.txt"
    )
    with pytest.raises(
        ConfigError, match=r"no folder .*tgt_domain/images.*; add it, or give another --layout"
    ):
        read_folder(empty)
    (empty / "tgt_domain/images").mkdir()
    with pytest.raises(ConfigError, match=r"tgt_domain/images holds no raster.*; fill it, or"):
        read_folder(empty)


@pytest.mark.parametrize(
    ("there", "missing"), [("sentinel", "gaofen"), ("src_domain", "tgt_domain"), ("Val", "Train")]
)
def test_half_of_two_domains_is_told_its_other_half(tmp_path: Path, there: str, missing: str) -> None:
    with pytest.raises(ConfigError, match=rf"holds {there} and no {missing}; both are needed; complete it"):
        read_folder(make(tmp_path, f"{there}/image/a.tif"))


def test_files_that_a_system_left_are_no_images(tmp_path: Path) -> None:
    names = [f"{d}/{k}/{n}" for d in ("src_domain", "tgt_domain") for k in ("images", "masks")
             for n in ("a.png", "._a.png", ".DS_Store", "Thumbs.db")]  # fmt: skip
    found = read_folder(make(tmp_path, *names))
    assert [len(found.items), len(found.targets), len(found.items[0].labels)] == [1, 1, 1]


def raster(path: Path, east: float, values: np.ndarray, **changes: Any) -> str:
    """(band, y, x) in pixels of 1 m, so far from a corner."""
    count, height, width = values.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": values.dtype}
    place = {"crs": "EPSG:32633", "transform": from_origin(500_000 + east, 5_500_000, 1, 1)}
    with rasterio.open(path, "w", **(profile | place | changes)) as sink:
        sink.write(values)
        sink.descriptions = BANDS[:count]
    return str(path)


BANDS = ("red", "green", "blue")
PIXELS = np.arange(3 * 256, dtype=np.uint8).reshape(3, 16, 16)
LABELS = np.array([[[1, 3] * 8] * 16], np.uint8)
BARE = {"crs": None, "transform": None}


def prepared(tmp_path: Path, targets: Sequence[str], labels: Sequence[str]) -> TrainingSet:
    image, own = raster(tmp_path / "a.tif", 0, PIXELS), raster(tmp_path / "al.tif", 0, LABELS)
    found = find_sources(images=[image], labels=[own], targets=targets, target_labels=labels)
    return prepare_sources(found, ["base4"], None, agree=1, seen=Imagery(()))


def test_targets_without_labels_are_not_judged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    targets = [raster(tmp_path / f"{east}.tif", east, PIXELS) for east in (0, 100, 200)]
    middle = raster(tmp_path / "middle.tif", 100, LABELS)
    empty = raster(tmp_path / "empty.tif", 200, np.zeros_like(LABELS), nodata=0)
    found = prepared(tmp_path, targets, [middle, empty]).target
    assert found is not None and len(found.pairs) == 3
    assert [pair.paths for pair in found.judged] == [(targets[1], middle)]
    assert "labels of 1 of 3 target images are given" in caplog.text
    with pytest.raises(ConfigError, match=r"no labelled pixel where .*200.tif lies, they are nodata"):
        prepared(tmp_path, targets, [empty])
    far = raster(tmp_path / "far.tif", 900, LABELS)
    with pytest.raises(
        ConfigError, match=r"labels .*far.tif lie on no target; needed are labels of the same"
    ):
        prepared(tmp_path, targets, [middle, far])


def test_of_labels_that_judge_nobody_is_told_what_they_do_not_teach(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target, half = raster(tmp_path / "b.tif", 0, PIXELS), raster(tmp_path / "bl.tif", 8, LABELS)
    assert prepared(tmp_path, [target], [half]).target
    assert "labels cover" not in caplog.text


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_labels_that_could_be_of_any_target_are_refused(tmp_path: Path) -> None:
    targets = [raster(tmp_path / f"{name}.tif", 0, PIXELS, **BARE) for name in "bc"]
    labels = raster(tmp_path / "bl.tif", 0, LABELS, **BARE)
    assert prepared(tmp_path, targets[:1], [labels]).target
    with pytest.raises(ConfigError, match=r"nothing says whether .*bl.tif is of it or of another"):
        prepared(tmp_path, targets, [labels])


@pytest.mark.parametrize("kind", ["gone", "rotated", "few"])
def test_bands_are_spoken_of_where_they_are_what_is_wrong(tmp_path: Path, kind: str) -> None:
    changes = {"transform": Affine(1, 0.5, 500_000, 0.5, -1, 5_500_000)} if kind == "rotated" else {}
    target = raster(tmp_path / "b.tif", 0, PIXELS[: 2 if kind == "few" else 3], **changes)
    if kind == "gone":
        Path(target).unlink()
    with pytest.raises(SceneError, match=r"target .*b.tif") as caught:
        prepared(tmp_path, [target], [])
    assert ("--bands" in str(caught.value)) == (kind == "few"), caught.value


def test_a_chip_is_brought_to_another_side_its_labels_by_nearest_neighbour() -> None:
    pixels = np.arange(16, dtype=np.uint8).reshape(4, 4, 1) * 10
    channels = np.array([[0, 0, 1, 1]] * 2 + [[2, 2, IGNORE, IGNORE]] * 2, np.uint8)
    smaller, labels = resized(pixels, channels, 2)
    assert labels.tolist() == [[0, 1], [2, IGNORE]] and smaller.dtype == np.uint8
    assert abs(int(smaller[..., 0].mean()) - int(pixels.mean())) <= 1
    larger, doubled = resized(pixels.astype(np.float32), channels, 8)
    assert larger.shape == (8, 8, 1) and larger.dtype == np.float32
    assert (doubled[::2, ::2] == channels).all() and (doubled[1::2, 1::2] == channels).all()
