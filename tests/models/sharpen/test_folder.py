"""The folder of a sharpening across power cuts and damage: old results are never taken for new ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from disk import left_by

from citycover.errors import ProductError
from citycover.product.names import SHARPENING
from citycover_models.sharpen.folder import REPORT, TRAINING, claim_sharpening
from citycover_models.training.folder import CHECKPOINT, RESULT


def test_what_belongs_to_another_sharpening_is_gone_before_the_new_one_is_noted(tmp_path: Path) -> None:
    with claim_sharpening(tmp_path, {"seed": "0"}, overwrite=False, restart=False):
        (tmp_path / TRAINING).mkdir()
    signs = {REPORT, f"{TRAINING}/{RESULT}", f"{TRAINING}/{CHECKPOINT}"}
    for sign in signs:
        (tmp_path / sign).write_text("old")

    def begin() -> None:
        with claim_sharpening(tmp_path, {"seed": "1"}, overwrite=True, restart=False) as finished:
            assert not finished

    begun = ".sharpen/begun.json"
    trees = left_by(tmp_path, begin)
    assert any(signs <= tree.keys() for tree in trees) and not signs & trees[-1].keys()
    for tree in trees:
        content = tree[begun]
        assert content is not None
        assert json.loads(content) == {"seed": "0"} or not signs & tree.keys()


def test_a_training_is_kept_together_with_what_it_is_for(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def begin() -> None:
        with claim_sharpening(out, {"seed": "0"}, overwrite=False, restart=False):
            (out / TRAINING).mkdir()

    trees = left_by(tmp_path, begin)
    assert any(f"out/{TRAINING}" in tree for tree in trees)
    assert all("out/.sharpen/begun.json" in tree for tree in trees if f"out/{TRAINING}" in tree)


def test_what_a_kill_left_half_written_goes(tmp_path: Path) -> None:
    begun, shown, report = (
        ".sharpen/.begun.host.7.tmp.json",
        ".sharpen.host.7.tmp.png",
        ".sharpen.host.7.tmp.json",
    )
    (tmp_path / ".sharpen").mkdir()
    (tmp_path / SHARPENING).write_text("{}")
    for name in (begun, shown, report, ".notes.host.7.tmp.txt"):
        (tmp_path / name).write_text("x")
    with claim_sharpening(tmp_path, {}, overwrite=False, restart=False):
        left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"begun.json", "lock", ".notes.host.7.tmp.txt"}


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000])
def test_a_sign_that_cannot_be_read_is_none_of_ours(tmp_path: Path, text: str) -> None:
    (tmp_path / SHARPENING).parent.mkdir(parents=True)
    (tmp_path / SHARPENING).write_text(text)
    (tmp_path / "notes.txt").write_text("mine")
    with (
        pytest.raises(ProductError, match=r"holds other content: notes.txt"),
        claim_sharpening(tmp_path, {"seed": "0"}, overwrite=False, restart=False),
    ):
        pass
