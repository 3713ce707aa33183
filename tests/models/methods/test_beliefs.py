"""Labels as beliefs: each loss against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from citycover_models.data.batches import LabelledBatch
from citycover_models.data.labels import IGNORE
from citycover_models.methods.beliefs import (
    BlockConsistency,
    Em,
    ImplicitPosterior,
    Soft,
    beliefs,
    block_loss,
    free_energy,
    posterior,
    smoothed,
    soft_cross_entropy,
)
from citycover_models.methods.method import Moment
from citycover_models.training.recipe import read_recipe

HALF = torch.zeros(1, 2, 1, 2)  # logits that say one half of either class


def batch_of(labels: list[list[int]], weights: list[float] | None = None) -> LabelledBatch:
    return LabelledBatch(
        torch.zeros(1, 1, 1, 1),
        torch.tensor([labels]),
        None if weights is None else torch.tensor(weights),
    )


def logits_of(*shares: float) -> torch.Tensor:
    """(1, 2, 1, n) logits whose softmax gives class 1 so much."""
    p = torch.tensor(shares)
    return torch.stack([(1 - p).log(), p.log()])[None, :, None]


def test_smoothed_labels_are_those_of_scipy_where_unlabelled_pixels_do_not_vote() -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 3, (2, 24, 30))
    labels[:, 5:11, 7:20] = IGNORE
    planes = np.stack([labels == k for k in range(3)], 1).astype(float)
    wanted = gaussian_filter(planes, (0, 0, 2, 2), mode="constant", truncate=3.0)
    wanted /= wanted.sum(1, keepdims=True)
    found = smoothed(torch.from_numpy(labels), 3, 2.0).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_beliefs_mix_in_the_shares() -> None:
    found = beliefs(torch.tensor([[[0, 0, 0, 1]]]), 2, sigma=0.1, noise=0.2)[0, :, 0].T
    wanted = torch.tensor([[0.8 + 0.15, 0.05]] * 3 + [[0.15, 0.8 + 0.05]]) + 1e-5
    torch.testing.assert_close(found, wanted)


def test_soft_cross_entropy_by_hand() -> None:
    target = torch.tensor([[0.25, 1.0], [0.75, 0.0]])[None, :, None]  # (1, k, 1, x)
    logits = logits_of(0.5, 0.2)
    first, second = math.log(2), -math.log(0.8)
    assert float(soft_cross_entropy(logits, target, batch_of([[1, 0]]))) == pytest.approx(
        (first + second) / 2
    )
    weighted = soft_cross_entropy(logits, target, batch_of([[1, 0]], [1.0, 3.0]))
    assert float(weighted) == pytest.approx((2.5 * first + second) / 3.5)  # .25 * 1 + .75 * 3 = 2.5
    unlabelled = soft_cross_entropy(logits, target, batch_of([[IGNORE, 0]]))
    assert float(unlabelled) == pytest.approx(second)


def test_block_loss_by_hand() -> None:
    logits = logits_of(0.9, 0.3, 0.5, 0.5)  # blocks of two: means 0.6 and 0.5 of class 1
    labels = torch.tensor([[[1, 0, IGNORE, 0]]])
    both = torch.cat([logits, logits], 2), torch.cat([labels, labels], 1)  # two rows alike
    first = -(0.5 * math.log(0.6) + 0.5 * math.log(0.4))
    second = -math.log(0.5)  # its unlabelled pixel counts in neither mean
    assert float(block_loss(*both, 2)) == pytest.approx((first + second) / 2)
    nothing = torch.full_like(both[1], IGNORE)
    assert float(block_loss(both[0], nothing, 2)) == 0


def test_the_posterior_by_hand() -> None:
    belief = torch.tensor([[0.5, 0.5], [0.5, 0.5]])[None, :, None]
    found = posterior(logits_of(0.8, 0.2), belief, strength=1.0)[0, 1, 0]
    torch.testing.assert_close(found, torch.tensor([0.8, 0.2]))  # the prior is one half, beliefs are even
    belief = torch.tensor([[0.9, 0.9], [0.1, 0.1]])[None, :, None]
    found = posterior(logits_of(0.8, 0.2), belief, strength=1.0)[0, 1, 0]
    torch.testing.assert_close(found, torch.tensor([0.08 / 0.26, 0.02 / 0.74]))
    trusted = posterior(logits_of(0.8, 0.2), belief, strength=0.0)[0, 1, 0]
    torch.testing.assert_close(trusted, torch.tensor([0.1, 0.1]))


def test_free_energy_by_hand_and_against_its_definition() -> None:
    q = torch.tensor([0.8, 0.2])
    belief = torch.tensor([[0.3, 0.9], [0.7, 0.1]])[None, :, None]
    seen = torch.ones(1, 1, 2, dtype=torch.bool)
    found = float(free_energy(logits_of(0.8, 0.2), belief, seen))
    leaving = -(0.2 * math.log(0.3) + 0.8 * math.log(0.7) + 0.8 * math.log(0.9) + 0.2 * math.log(0.1)) / 2
    assert found == pytest.approx(-math.log(2) + leaving)  # the mean prediction is even
    q = torch.stack([1 - q, q])  # (k, pixel)
    model = belief[0, :, 0] * q / q.sum(1, keepdim=True)
    assert found == pytest.approx(float((q * (q / model).log()).sum(0).mean()) - math.log(2), abs=1e-6)
    assert float(free_energy(HALF, belief, ~seen)) == 0


class Pixelwise(nn.Module):
    """Logits are the image."""

    first_class = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.parametrize(
    "method", [Soft(), BlockConsistency(), Em(warm_up=0.5), ImplicitPosterior()], ids=lambda m: m.name
)
def test_every_method_has_gradients_and_learns_plain_labels(method) -> None:
    """Free logits move to the labels of two halves."""
    labels = torch.zeros(1, 16, 32, dtype=torch.long)
    labels[..., 16:] = 1
    logits = torch.zeros(1, 2, 16, 32, requires_grad=True)
    network = Pixelwise()
    for step in range(60):
        loss = method(network, LabelledBatch(logits, labels, None), Moment(step, 60, 0))
        assert torch.isfinite(loss)
        (gradient,) = torch.autograd.grad(loss, logits)
        logits = (logits - 200 * gradient).detach().requires_grad_()
    said = logits.argmax(1)
    assert bool((said[..., :12] == 0).all()) and bool((said[..., 20:] == 1).all())


@pytest.mark.parametrize("name", ["soft", "block-consistency", "em", "implicit-posterior"])
def test_a_recipe_takes_them_by_name(name: str) -> None:
    assert read_recipe("l2hnet-light", [f"method.name={name}"]).method.name == name
