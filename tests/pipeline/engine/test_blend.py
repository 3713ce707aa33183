import numpy as np
import pytest
import torch

from citycover.engine.blend import RowBlender
from citycover.plan.axis import Axis, rise


@pytest.mark.parametrize("feather", [0, 1, 2, 7, 64, 255])
def test_rise_and_fall_sum_to_exactly_one_and_mirror_each_other(feather: int) -> None:
    ramp = rise(feather)
    assert ((ramp + (1 - ramp)) == 1).all()
    np.testing.assert_array_equal(1 - ramp, ramp[::-1])
    assert (np.diff(ramp) > 0).all()


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("feather", [0, 3])
def test_stripes_equal_the_plain_weighted_sum(batch: int, feather: int) -> None:
    y, x = Axis(22, 8, 2, feather), Axis(37, 8, 2, feather)
    rng = np.random.default_rng(1)
    votes = rng.random((y.count, x.count, 3, 8 + feather, 8 + feather), np.float32)
    plain = np.zeros((3, y.count * 8 + 40, x.count * 8 + 40))
    blended = np.zeros_like(plain)
    blender = RowBlender((feather, feather))
    for i in range(y.count):
        blender.next_row()
        for j in range(x.count):
            wy, wx = y.weights(i)[2:-2], x.weights(j)[2:-2]
            tile = votes[i, j] * wy[:, None] * wx
            r, c = i * 8 - feather + 20, j * 8 - feather + 20
            plain[:, r : r + 8 + feather, c : c + 8 + feather] += tile
        together = batch + i % 2  # stripes above are of other runs than those below
        for first in range(0, x.count, together):
            run = torch.from_numpy(votes[i, first : first + together].copy())
            ends = first + len(run) == x.count
            for k, final in enumerate(blender.add(run, first, ends, i == y.count - 1), first):
                width = 8 + feather * (k == x.count - 1)
                r, c = i * 8 - feather + 20, k * 8 - feather + 20
                blended[:, r : r + final.shape[1], c : c + width] = final[..., :width].numpy()
    inside = (slice(None), slice(20, 20 + y.size), slice(20, 20 + x.size))
    np.testing.assert_allclose(blended[inside], plain[inside], atol=1e-6)
