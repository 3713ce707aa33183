"""Layouts with two domains, chips at other sizes and in other numbers, and plans of targets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from citycover.errors import ConfigError
from citycover_models.data.chips import resized
from citycover_models.data.labels import IGNORE
from citycover_models.data.layouts import read_folder


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
    make(made, "tgt_domain/masks/b.tif")
    assert read_folder(made).targets[0].labels == (str(made / "tgt_domain/masks/b.tif"),)


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
    with pytest.raises(ConfigError, match=r"tgt_domain/images holds no raster"):
        read_folder(empty)


def test_a_chip_is_brought_to_another_side_its_labels_by_nearest_neighbour() -> None:
    pixels = np.arange(16, dtype=np.uint8).reshape(4, 4, 1) * 10
    channels = np.array([[0, 0, 1, 1]] * 2 + [[2, 2, IGNORE, IGNORE]] * 2, np.uint8)
    smaller, labels = resized(pixels, channels, 2)
    assert labels.tolist() == [[0, 1], [2, IGNORE]] and smaller.dtype == np.uint8
    assert abs(int(smaller[..., 0].mean()) - int(pixels.mean())) <= 1
    larger, doubled = resized(pixels.astype(np.float32), channels, 8)
    assert larger.shape == (8, 8, 1) and larger.dtype == np.float32
    assert (doubled[::2, ::2] == channels).all() and (doubled[1::2, 1::2] == channels).all()
