"""How far a target's statistics are trusted: the mixture, agreement in other light, which share is taken."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import nn

from citycover_models.blocks.domain_norm import SOURCE, TARGET, DomainBatchNorm2d, blend_domains, fold_domain
from citycover_models.data.batches import LabelledBatch
from citycover_models.data.labels import IGNORE
from citycover_models.methods.trust import CHIPS, best_share, kappa, look, steadiness


class Threshold(nn.Module):
    """Bright or dark, about the mean of a domain."""

    def __init__(self, source: float, target: float) -> None:
        super().__init__()
        self.norm = DomainBatchNorm2d(nn.BatchNorm2d(1, eps=0.0))
        for domain, mean in ((SOURCE, source), (TARGET, target)):
            norm = self.norm.norms[domain]
            assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None
            norm.running_mean.fill_(mean)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(x)
        return torch.cat([x, -x], 1)


def chip(*numbers: float, valid: int | None = None) -> LabelledBatch:
    """One row of pixels; those from `valid` on are none."""
    labels = torch.zeros(1, 1, len(numbers), dtype=torch.long)
    if valid is not None:
        labels[..., valid:] = IGNORE
    return LabelledBatch(torch.tensor(numbers).view(1, 1, 1, -1), labels)


def statistics(network: Threshold, domain: int) -> tuple[float, float]:
    norm = network.norm.norms[domain]
    return float(norm.running_mean), float(norm.running_var)


@pytest.mark.parametrize(
    ("share", "mean", "variance"), [(0.0, 10.0, 1.0), (0.25, 15.0, 3.0), (0.5, 20.0, 5.0), (1.0, 30.0, 9.0)]
)
def test_a_share_mixes_mean_and_variance_and_leaves_the_source(
    share: float, mean: float, variance: float
) -> None:
    network = Threshold(10.0, 30.0).eval()
    network.norm.norms[TARGET].running_var.fill_(9.0)
    blend_domains(network, share)
    assert statistics(network, TARGET) == (mean, variance)
    assert statistics(network, SOURCE) == (10.0, 1.0)
    folded = fold_domain(network)
    assert isinstance(folded.norm, nn.BatchNorm2d), "what is exported has nothing left to choose"
    given = torch.full((1, 1, 1, 1), mean + variance**0.5)
    torch.testing.assert_close(folded(given)[0, :, 0, 0], torch.tensor([1.0, -1.0]))


def test_agreement_is_counted_beyond_chance() -> None:
    # 10 of 12 agree; by chance 7/12 x 5/12 + 5/12 x 7/12 = 70/144 would.
    assert kappa(torch.tensor([[5, 2], [0, 5]])) == pytest.approx((120 - 70) / (144 - 70))
    assert kappa(torch.tensor([[0, 4], [4, 0]])) == -1
    assert kappa(torch.tensor([[9, 0], [0, 0]])) == 0, "a map of one class says nothing"
    assert kappa(torch.zeros(2, 2)) == 0, "nor does a map of nothing"


def test_steadiness_counts_valid_pixels_in_darker_and_in_brighter_light() -> None:
    network = Threshold(100.0, 0.0).eval()
    # About 100: 50 stays dark, 200 bright; 110 turns dark at 0.85 of its light, 90 bright at 1.15 (103.5).
    # Both lights: bright-bright 2 + 1, bright-dark 1, dark-dark 2 + 1, dark-bright 1; by chance one half.
    chips = [chip(50.0, 200.0, 110.0, 90.0, 110.0, valid=4)]
    assert steadiness(network, chips) == pytest.approx((6 / 8 - 1 / 2) / (1 / 2))
    assert steadiness(network, [chip(50.0, 200.0)]) == 1
    assert steadiness(network, [chip(110.0, 110.0)]) == 0


def seen_by(network: Threshold, chips: Sequence[LabelledBatch]) -> float:
    return best_share(look(network, chips, lambda mixed: mixed))


def test_the_steadiest_share_is_taken_and_the_network_stays_as_it_was(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    network = Threshold(100.0, 200.0)
    # Thresholds are 100, 125, 150, 175, 200 for the five shares.
    assert seen_by(network, [chip(100.0, 105.0, 95.0, 300.0)]) == 0.25, "pixels lie about the source's mean"
    assert seen_by(network, [chip(200.0, 205.0, 195.0, 60.0)]) == 0, "and here about the target's"
    assert seen_by(network, [chip(110.0, 130.0, 160.0, 170.0, 300.0)]) == 1, "far from the target's alone"
    assert network.training and statistics(network, TARGET) == (200.0, 1.0)
    assert network.norm.domain == SOURCE
    assert "statistics of the target count for 0: agreement in other light" in caplog.text


def test_a_map_of_one_class_is_not_taken_for_a_steady_one() -> None:
    # Thresholds are 10, 82.5, 155, 227.5, 300: the first two see one class, and light crosses the last two.
    assert seen_by(Threshold(10.0, 300.0), [chip(120.0, 130.0, 265.0, 400.0, 500.0)]) == 0.5


def test_no_more_chips_are_read_than_are_needed() -> None:
    read = []

    def reading() -> Iterator[LabelledBatch]:
        for number in range(100):
            read.append(number)
            yield chip(50.0, 200.0)

    look(Threshold(100.0, 0.0), reading(), lambda mixed: mixed)
    assert len(read) == CHIPS


def test_what_was_found_earlier_counts_as_much() -> None:
    now, then = {0.0: 0.5, 0.5: 0.625, 1.0: 0.75}, {0.0: 0.875, 0.5: 0.75, 1.0: 0.5}
    assert best_share(now) == 1
    assert best_share(now, [then]) == 0, "1.375, 1.375 and 1.25; of equal ones the smallest"
    assert best_share(now, [then, {0.0: 0.0, 0.5: 0.125, 1.0: 0.0}]) == 0.5
