"""Checkpoints: what was written is gone on with, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from citycover.errors import ConfigError
from citycover_models.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "checkpoint.pt"
    weights = {"a.weight": torch.arange(600.0).reshape(20, 30), "a.bias": torch.ones(20)}
    moments = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]}
    write_checkpoint(Checkpoint("this training", 3, weights, moments, best=0.5), path)
    return path


def same(one: Checkpoint, other: Checkpoint) -> bool:
    return repr(one) == repr(other) and all(
        torch.equal(tensor, other.network[name]) for name, tensor in one.network.items()
    )


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_bit_that_turned_is_refused_or_changes_nothing(written: Path, place: float, bit: int) -> None:
    content = bytearray(written.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    damaged = written.with_name("damaged.pt")
    damaged.write_bytes(content)
    try:
        found = read_checkpoint(damaged, "this training")
    except ConfigError:
        return
    assert same(found, read_checkpoint(written, "this training"))


@pytest.mark.parametrize("size", [0, 1, 100, 2000])
def test_a_checkpoint_that_was_cut_is_refused(written: Path, size: int) -> None:
    cut = written.with_name("cut.pt")
    cut.write_bytes(written.read_bytes()[:size])
    with pytest.raises(ConfigError, match=r"cannot be read.*start again with --overwrite"):
        read_checkpoint(cut, "this training")
