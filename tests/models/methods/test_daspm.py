"""DAFormer's adaptation: every formula by numbers computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from citycover.errors import ConfigError
from citycover_models.data.batches import LabelledBatch
from citycover_models.data.labels import IGNORE
from citycover_models.data.sampling import rare_class_odds
from citycover_models.methods import daspm
from citycover_models.methods.daspm import (
    DAFormerAdaptation,
    blur,
    class_mix_mask,
    confidence,
    follow,
    strong_augment,
    teaching,
)
from citycover_models.methods.method import Company, Moment
from citycover_models.nets.daformer import DAFormer
from citycover_models.nets.hrda import Glimpse


def test_the_teacher_is_a_copy_at_first_and_then_an_exponential_mean_of_parameters_alone() -> None:
    teacher, student = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    nn.init.constant_(student.weight, 8.0)
    student.running_mean.fill_(5.0)
    follow(teacher, student, 0, 0.999)
    assert teacher.weight.item() == 8.0, "a = 1 - 1/1 = 0"
    nn.init.constant_(student.weight, 0.0)
    follow(teacher, student, 1, 0.999)
    assert teacher.weight.item() == 4.0, "a = 1 - 1/2"
    follow(teacher, student, 3, 0.999)
    assert teacher.weight.item() == 3.0, "a = 1 - 1/4"
    follow(teacher, student, 10**6, 0.5)
    assert teacher.weight.item() == 1.5, "a = alpha"
    assert float(teacher.running_mean) == 0.0, "buffers are its own"


def test_the_teacher_trains_its_statistics_and_drops_nothing() -> None:
    network = teaching(DAFormer("b0").eval())
    dropping = [m for m in network.modules() if type(m).__name__ in {"Dropout2d", "DropPath"}]
    assert dropping and not any(m.training for m in dropping)
    assert all(m.training for m in network.modules() if isinstance(m, nn.BatchNorm2d))


def test_rare_classes_are_drawn_by_the_softmax_of_their_rarity() -> None:
    odds = rare_class_odds(np.array([85.0, 10.0, 5.0, 0.0]), 0.01)
    assert odds[3] == 0 and odds.sum() == pytest.approx(1)
    assert odds[2] / odds[1] == pytest.approx(math.exp(5)), "a gap of 0.05 at T = 0.01 is e^5"
    even = rare_class_odds(np.array([85.0, 10.0, 5.0]), 1.0)
    wanted = np.exp([0.15, 0.90, 0.95])
    assert even == pytest.approx(wanted / wanted.sum())


def test_half_of_the_classes_of_each_image_are_cut_out_the_larger_half_of_an_odd_number() -> None:
    torch.manual_seed(0)
    four = torch.tensor([[[0, 1], [2, 3]]])
    odd = torch.tensor([[[0, 1], [2, IGNORE]], [[4, 4], [4, 4]]])
    for _ in range(20):
        assert int(class_mix_mask(four).sum()) == 2
        masks = class_mix_mask(odd)
        assert int(masks[0].sum()) == 2, "no label counts as a class: four of them"
        assert bool(masks[1].all()), "one class: all of it"
    three = torch.tensor([[[0, 1, 2, 2]]])
    assert {int(class_mix_mask(three).sum()) for _ in range(40)} == {2, 3}, "two of three classes"


def test_q_is_the_share_of_confident_pixels_among_the_valid() -> None:
    best = torch.tensor([[[0.968, 0.9], [0.99, 0.99]], [[1.0, 1.0], [1.0, 1.0]]])
    valid = torch.tensor([[[True, True], [True, False]], [[False] * 2] * 2])
    torch.testing.assert_close(confidence(best, valid, 0.968), torch.tensor([2 / 3, 0.0]))


def test_blur_keeps_the_mean_and_spreads_a_point_as_a_gaussian() -> None:
    point = torch.zeros(1, 1, 21, 21)
    point[0, 0, 10, 10] = 1
    spread = blur(point, 1.0)[0, 0]
    assert float(spread.sum()) == pytest.approx(1)
    assert float(spread[10, 11] / spread[10, 10]) == pytest.approx(math.exp(-0.5), rel=1e-4)
    flat = torch.full((1, 2, 8, 8), 3.0)
    torch.testing.assert_close(blur(flat, 1.15), flat)


def test_strong_augmentation_moves_gain_and_level_of_each_band_at_most_by_the_jitter() -> None:
    torch.manual_seed(1)
    mean, std = torch.full((1, 2, 1, 1), 100.0), torch.full((1, 2, 1, 1), 10.0)
    images = torch.full((1, 2, 8, 8), 110.0)
    seen = torch.stack([strong_augment(images, std, mean, 0.2)[0, :, 0, 0] for _ in range(200)])
    assert bool((seen >= 106 - 1e-3).all()) and bool((seen <= 114 + 1e-3).all()), "10 (1 +- 0.2) +- 2"
    assert 0.1 < float((seen[:, 0] == 110).float().mean()) < 0.35, "one of five steps leaves light alone"
    assert not torch.allclose(seen[:, 0], seen[:, 1])


class Fine(nn.Module):
    """The least network of two scales: logits are the first two bands."""

    def __init__(self, upscale: int) -> None:
        super().__init__()
        self.upscale = upscale
        self.gain = nn.Parameter(torch.ones(()))
        self.normalise = nn.Identity()
        self.normalise.mean, self.normalise.std = torch.zeros(1, 2, 1, 1), torch.ones(1, 2, 1, 1)

    def to_fine_grid(self, x: torch.Tensor) -> torch.Tensor:
        return x.repeat_interleave(self.upscale, 2).repeat_interleave(self.upscale, 3)

    def encode(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.gain * x]

    def decode(self, maps: list[torch.Tensor]) -> torch.Tensor:
        return maps[-1]


class Twice(Fine):
    """Looks at all, where it is unsure, and at the upper left quarter, where it is sure of what it sees."""

    def context(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.gain * x[:, :, ::2, ::2]]

    def glimpse(self, x: torch.Tensor) -> Glimpse:
        rows, columns = slice(0, x.shape[2] // 2), slice(0, x.shape[3] // 2)
        return Glimpse([0 * x, *self.context(x)], self.gain * x[:, :, rows, columns], rows, columns)

    def decode(self, maps: list[torch.Tensor]) -> torch.Tensor:
        return maps[0]


def test_a_network_of_two_resolutions_learns_a_tenth_from_its_crop_of_details() -> None:
    network = Twice(1)
    images = torch.zeros(1, 2, 8, 8)
    images[:, 1] = 3.0
    labels = torch.zeros(1, 8, 8, dtype=torch.long)
    labels[:, :4, :4] = 1
    weights = torch.ones(1, 8, 8)
    weights[:, :2, :4] = 0.0  # half of the crop does not count, an eighth of all
    learned = daspm.learn(network, images, labels, weights)
    whole, crop = 7 / 8 * math.log(2), 0.5 * math.log1p(math.exp(-3))
    assert float(learned.loss.detach()) == pytest.approx(0.9 * whole + 0.1 * crop, rel=1e-5)
    assert learned.logits.shape == (1, 2, 8, 8) and learned.deepest.shape == (1, 2, 4, 4)
    alone = daspm.learn(network, images, labels, None)
    wanted = 0.9 * math.log(2) + 0.1 * math.log1p(math.exp(-3))
    assert float(alone.loss.detach()) == pytest.approx(wanted, rel=1e-5)
    with torch.no_grad():
        other = Twice(1)
        other.gain.mul_(3)
        labelled = LabelledBatch(images, labels)
        distance = DAFormerAdaptation()._distance(other, images, learned.deepest, labelled)
    assert float(distance) == pytest.approx(6.0), "of the context's features: 9 and 3"


def test_the_loss_is_source_plus_mixture_by_the_confidence_of_the_teacher(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(daspm, "strong_augment", lambda images, *_: images)
    method = DAFormerAdaptation(jitter=0.0, feature_weight=0.0, threshold=0.9)
    network = Fine(2)
    source = torch.zeros(1, 2, 8, 8)
    labels = torch.zeros(1, 8, 8, dtype=torch.long)
    labels[:, :, 4:] = IGNORE
    target = torch.zeros(1, 2, 4, 4)
    target[:, 1] = 10.0  # the teacher is sure of class 1 everywhere
    batch = LabelledBatch(source, labels, None, LabelledBatch(target, torch.zeros(1, 4, 4, dtype=torch.long)))
    company = method.company(network, pretrained=False)
    assert company is not None
    half = 0.5 * math.log(2)  # CE of even logits, over all pixels: the unlabelled half counts in the mean
    losses = [float(method(network, batch, Moment(0, 10, 0), company).detach()) for _ in range(10)]
    # Cut out is class 0, half of the pixels at log 2, or "no label"; the rest is the target, known by heart.
    assert {round(loss / half, 3) for loss in losses} == {1.0, 2.0}
    unsure = LabelledBatch(source, labels, None, LabelledBatch(target * 0, batch.target.labels))
    alone = float(method(network, unsure, Moment(0, 10, 0), company).detach())
    assert min(abs(alone - half), abs(alone - 2 * half)) < 1e-5, "q = 0: the target teaches nothing"
    plain = DAFormerAdaptation(target="unseen")
    assert float(plain(network, batch, Moment(0, 10, 0), company).detach()) == pytest.approx(half)


def test_shares_within_a_coarse_pixel_are_compared_where_all_of_it_is_the_targets() -> None:
    shares = torch.zeros(1, 2, 2, 4)
    shares[:, 0] = torch.tensor([[1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    shares[:, 1] = 1 - shares[:, 0]
    taught = torch.full((1, 2, 2, 4), 0.5)
    alone = torch.ones(1, 2, 4, dtype=torch.bool)
    # Left: a = (1/4, 3/4) against (1/2, 1/2), mean |.| = 1/4; right: (1, 0), mean 1/2.
    assert daspm.abundance_distance(shares, taught, alone, 2).item() == pytest.approx(0.375)
    alone[0, 0, 3] = False
    assert daspm.abundance_distance(shares, taught, alone, 2).item() == pytest.approx(0.25)
    assert daspm.abundance_distance(shares, taught, torch.zeros_like(alone), 2).item() == 0


def test_squares_of_an_image_are_left_out_by_their_chance() -> None:
    torch.manual_seed(0)
    seen = daspm.block_mask(torch.zeros(40, 3, 70, 64), 32, 0.7)
    assert seen.shape == (40, 1, 70, 64)
    for rows in (slice(0, 32), slice(32, 64), slice(64, 70)):
        squares = seen[:, 0, rows, :32]
        assert bool((squares == squares[:, :1, :1]).all()), "whole squares, cut at the far edge"
    assert 0.2 < float(seen.float().mean()) < 0.4
    assert bool(daspm.block_mask(torch.zeros(1, 1, 4, 4), 2, 0.0).all())


def test_masked_consistency_adds_the_pseudo_labels_loss_of_what_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(daspm, "strong_augment", lambda images, *_: images)
    left = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    left[..., :2] = False
    monkeypatch.setattr(daspm, "block_mask", lambda *_: left)
    images = torch.zeros(1, 2, 4, 4)
    labels = torch.full((1, 4, 4), IGNORE)
    target = torch.zeros(1, 2, 4, 4)
    target[:, 1] = 5.0
    batch = LabelledBatch(images, labels, None, LabelledBatch(target, torch.zeros(1, 4, 4, dtype=torch.long)))
    network = Fine(1)
    losses = {}
    for weight in (0.0, 2.0):
        torch.manual_seed(0)
        method = DAFormerAdaptation(target="plain", feature_weight=0.0, masked_weight=weight)
        company = method.company(network, pretrained=False)
        losses[weight] = float(method(network, batch, Moment(0, 9, 0), company).detach())
    # Half of the pixels are the mean, 0, and cost log 2; the other half is known: log(1 + e^-5).
    wanted = 2 * (0.5 * math.log(2) + 0.5 * math.log1p(math.exp(-5)))
    assert losses[2.0] - losses[0.0] == pytest.approx(wanted, rel=1e-5)


def test_the_source_is_seen_through_the_optics_of_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daspm, "blur", lambda images, sigma: images * sigma)
    method = DAFormerAdaptation(degrade=1.0)
    images = torch.zeros(1, 2, 10, 10)
    images[:, 0, :5, :5] = 4.0
    seen = method._degraded(Fine(5), images)
    # Point spread of 0.42 coarse pixels: 2.1 fine ones; then the mean of 5 x 5, put back on the fine grid.
    assert seen[0, 0, :5, :5].unique().tolist() == pytest.approx([8.4]) and not seen[0, 1].any()
    assert torch.equal(DAFormerAdaptation(degrade=0.0)._degraded(Fine(5), images), images)
    assert torch.equal(method._degraded(Fine(1), images), images), "one scale: nothing to bridge"


def test_without_class_mix_the_target_is_learned_from_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daspm, "strong_augment", lambda images, *_: images)
    images, labels = torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=torch.long)
    target = torch.zeros(1, 2, 4, 4)
    target[:, 1] = 5.0
    batch = LabelledBatch(images, labels, None, LabelledBatch(target, labels))
    method, network = DAFormerAdaptation(target="plain", feature_weight=0.0), Fine(1)
    company = method.company(network, pretrained=False)
    loss = float(method(network, batch, Moment(0, 9, 0), company).detach())
    assert loss == pytest.approx(math.log(2) + math.log1p(math.exp(-5)), rel=1e-5)


def test_features_are_held_near_the_weights_that_a_training_began_with() -> None:
    method = DAFormerAdaptation(target="unseen", feature_weight=0.5)
    network = Fine(1)
    assert method.company(network, pretrained=False).reference is None
    company = method.company(network, pretrained=True)
    with torch.no_grad():
        network.gain.mul_(2)
    images = torch.full((1, 2, 4, 4), 3.0)
    labels = torch.zeros(1, 4, 4, dtype=torch.long)
    batch = LabelledBatch(images, labels, None, LabelledBatch(images, labels))
    loss = method(network, batch, Moment(0, 1, 0), company)
    entropy = math.log(2)  # both bands are alike
    assert float(loss.detach()) == pytest.approx(entropy + 0.5 * math.sqrt(2 * 3.0**2), rel=1e-5)
    assert isinstance(company, Company) and not any(p.requires_grad for p in company.parameters())


def test_the_two_domains_meet_on_the_fine_grid_or_are_refused() -> None:
    method = DAFormerAdaptation()
    assert method.source_scale(5.0, 5) == 1.0 and method.source_scale(4.8, 5) == 1.0
    assert method.source_scale(10.0, 5) == 0.5, "source of 1 m, target of 10 m, fine grid of 2 m"
    assert method.source_scale(10.003, 5) == pytest.approx(0.5, rel=1e-3), "the same two on real ground"
    with pytest.raises(ConfigError, match=r"10.5 times as large"):
        method.source_scale(10.5, 5)
    with pytest.raises(ConfigError, match=r"33.3 times as large.*scale 5 takes 2.5 to 10 times"):
        method.source_scale(33.3, 5)
    with pytest.raises(ConfigError, match="were source and target swapped"):
        method.source_scale(0.2, 5)
