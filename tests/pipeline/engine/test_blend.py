import numpy as np
import pytest
import torch

from citycover.engine.blend import BestClass, RowBlender
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
        for first in range(0, x.count, batch):
            run = torch.from_numpy(votes[i, first : first + batch].copy())
            ends = first + len(run) == x.count
            for k, final in enumerate(blender.add(run, first, ends, i == y.count - 1)):
                r, c = i * 8 - feather + 20, (first + k) * 8 - feather + 20
                blended[:, r : r + final.shape[1], c : c + final.shape[2]] = final.numpy()
    inside = (slice(None), slice(20, 20 + y.size), slice(20, 20 + x.size))
    np.testing.assert_allclose(blended[inside], plain[inside], atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 5, 8, 19, 256])
def test_best_class_equals_argmax_where_the_winner_is_clear(channels: int) -> None:
    torch.manual_seed(channels)
    probabilities = torch.softmax(5 * torch.randn(channels, 40, 30), 0)
    best = probabilities.max(0)
    names = np.random.default_rng(0).permutation(256)[:channels].astype(np.uint8)
    ids, confidence = BestClass(names, torch.device("cpu"))(probabilities.clone())
    ordered = probabilities.sort(0, descending=True).values
    clear = (ordered[0] / ordered[min(1, channels - 1)] > 1 + 2**-14) | torch.tensor(channels == 1)
    assert (ids == torch.from_numpy(names)[best.indices])[clear].all()
    wanted = (best.values * 255).round().clamp(1, 255)
    assert (confidence.float() - wanted).abs().max() <= (0 if channels < 9 else 1)


def test_of_equal_probabilities_the_first_class_wins() -> None:
    probabilities = torch.full((4, 2, 2), 0.25)
    ids, confidence = BestClass(np.array([7, 1, 2, 3], np.uint8), torch.device("cpu"))(probabilities)
    assert (ids == 7).all() and (confidence == 64).all()
