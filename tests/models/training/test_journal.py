"""The pictures of a training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from citycover.classes.legend import read_legend
from citycover_models.training.journal import draw_predictions


def test_predictions_name_their_columns_and_classes(tmp_path: Path) -> None:
    legend = read_legend("base4")
    images = np.random.default_rng(0).integers(0, 255, (2, 4, 16, 16), np.uint8)
    nothing = np.full((2, 16, 16), 255, np.uint8)
    draw_predictions(tmp_path / "p.png", images, nothing, nothing, legend)
    picture = np.asarray(Image.open(tmp_path / "p.png").convert("RGB"))
    head = picture[:32].min(2) < 128
    assert all(head[:, x : x + 256].any() for x in (0, 262, 524)), "a name above each column"
    below = {tuple(pixel) for pixel in picture[32 + 2 * 262 :].reshape(-1, 3).tolist()}
    assert {entry.rgb for entry in legend.classes} <= below
