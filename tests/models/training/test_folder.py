"""The folder of a training across power cuts: what says that it is finished is whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from disk import left_by

from citycover_models.training.folder import CHECKPOINT, RESULT, training_folder

PLAN = json.dumps({"citycover": "0", "recipe": {}, "samples": {}})


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """What a finished training leaves."""
    models = ("weights.safetensors", "model.pt", "model.pt2")
    for name in ("metrics.jsonl", "best.safetensors", *models, RESULT):
        (tmp_path / name).write_text("old")
    (tmp_path / "plan.json").write_text(PLAN)
    return tmp_path


def test_a_training_that_is_half_cleared_is_neither_finished_nor_somebody_elses(finished: Path) -> None:
    def clear() -> None:
        with training_folder(finished, resume=False, overwrite=True) as clear:
            clear()

    trees = left_by(finished, clear)
    assert any(RESULT not in tree for tree in trees)
    for tree in trees:
        whole = {"weights.safetensors", "model.pt", "best.safetensors"} <= tree.keys()
        assert RESULT not in tree or whole
        assert "plan.json" in tree, "by it the folder is known, and may be cleared once more"
    assert [path.name for path in finished.iterdir()] == ["plan.json"]


def test_what_a_kill_left_half_written_goes_and_other_files_stay(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(PLAN)
    for name in (".checkpoint.host.7.tmp.pt", ".model.host.7.tmp.pt", ".notes.host.7.tmp.txt", CHECKPOINT):
        (tmp_path / name).write_text("x")
    with training_folder(tmp_path, resume=True, overwrite=False):
        left = {path.name for path in tmp_path.iterdir()}
    assert left == {"plan.json", CHECKPOINT, ".notes.host.7.tmp.txt", ".lock"}


def test_a_kill_before_the_plan_was_written_leaves_a_folder_that_can_be_used(tmp_path: Path) -> None:
    (tmp_path / ".plan.host.7.tmp.json").write_text("{")
    with training_folder(tmp_path, resume=False, overwrite=False):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
