"""The pictures of a training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from citycover.classes.legend import read_legend
from citycover_models.training.journal import Journal, draw_predictions


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


DAMAGE = [
    b"\xff\xfe", b"{", b"[" * 100_000, b"[]", b"3", b'{"step": "2"}', b'{"loss": 1.0}', b'{"step": nul',
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage[:12].decode("latin-1"))
def test_of_damaged_metrics_what_follows_the_damage_is_dropped(tmp_path: Path, damage: bytes) -> None:
    rows = [b'{"step": 1, "loss": 2.0}', damage, b'{"step": 2, "loss": 1.0}']
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(rows))
    journal = Journal(tmp_path, 9, ("loss", "loss"))
    assert journal.rows == [{"step": 1, "loss": 2.0}]
    journal.add({"step": 3, "loss": 0.5})
    journal.keep()
    assert [
        row["step"] for row in map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    ] == [1, 3]
