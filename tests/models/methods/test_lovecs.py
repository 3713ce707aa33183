"""LoveCS and its baselines: stages, statistics of either sensor, loss."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
import torch
from torch import nn

from citycover.errors import ConfigError
from citycover_models.blocks.domain_norm import SOURCE, TARGET, DomainBatchNorm2d
from citycover_models.data.batches import LabelledBatch
from citycover_models.data.labels import IGNORE
from citycover_models.methods import lovecs
from citycover_models.methods.lovecs import CSN, AdaBN, LoveCS, SourceOnly
from citycover_models.methods.method import Moment, Sight, Stage
from citycover_models.methods.trust import Steadiness
from citycover_models.nets.semantic_fpn import SemanticFPN
from citycover_models.training.recipe import read_recipe

NOW = Moment(0, 10, 0)


class OneNorm(nn.Module):
    """One normalisation and nothing else: three bands in, three logits out."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = DomainBatchNorm2d(nn.BatchNorm2d(3))

    def look_as(self, domain: int) -> None:
        self.norm.domain = domain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x)


def batch_of(source: float, target: float | None) -> LabelledBatch:
    noise = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(2, 32, 32, dtype=torch.long)
    other = None if target is None else LabelledBatch(noise + target, labels + 1)
    return LabelledBatch(noise + source, labels, None, other)


def means(network: OneNorm) -> list[float]:
    return [float(norm.running_mean.mean()) for norm in network.norm.norms]


def test_the_published_stages_are_ten_thousand_steps_and_three_labellings() -> None:
    assert LoveCS().stages(15_000) == (
        Stage(0, 10_000),
        Stage(10_000, 12_000, target=True, labelled=True),
        Stage(12_000, 14_000, target=True, labelled=True),
        Stage(14_000, 15_000, target=True, labelled=True),
    )
    assert CSN().stages(15_000) == (Stage(0, 10_000), Stage(10_000, 15_000, target=True))
    assert CSN(warm_up=0).stages(10) == (Stage(0, 10, target=True),)
    assert SourceOnly().stages(10) == AdaBN().stages(10) == (Stage(0, 10),)


@pytest.mark.parametrize("steps", [1, 2, 4, 15_000])
def test_the_target_comes_in_for_the_last_step_at_least(steps: int) -> None:
    for method in (CSN(warm_up=0.99), LoveCS(warm_up=0.99)):
        *_, last = method.stages(steps)
        assert last.target and last.first < last.last == steps


def test_figures_count_from_where_the_target_is_in() -> None:
    assert LoveCS().counts_from(15_000) == CSN().counts_from(15_000) == 10_000
    assert CSN(warm_up=0).counts_from(10) == SourceOnly().counts_from(10) == AdaBN().counts_from(10) == 0


def test_self_training_adds_half_the_loss_of_the_target_in_its_own_statistics() -> None:
    network, method = OneNorm().train(), LoveCS()
    batch = batch_of(0.0, 50.0)
    loss = method(network, batch, NOW)
    logits = nn.functional.batch_norm(batch.images, None, None, training=True)
    assert batch.target is not None
    other = nn.functional.batch_norm(batch.target.images, None, None, training=True)
    wanted = nn.functional.cross_entropy(logits, batch.labels)
    wanted = wanted + 0.5 * nn.functional.cross_entropy(other, batch.target.labels)
    torch.testing.assert_close(loss, wanted)
    assert means(network) == pytest.approx([0.0, 5.0], abs=0.02), "momentum 0.1, each into its own"
    assert network.norm.domain == SOURCE
    nothing = LabelledBatch(batch.target.images, torch.full((2, 32, 32), IGNORE))
    alone = LabelledBatch(batch.images, batch.labels, None, nothing)
    torch.testing.assert_close(method(network, alone, NOW), nn.functional.cross_entropy(logits, batch.labels))


def test_without_pseudo_labels_the_target_moves_statistics_and_no_weight() -> None:
    network = OneNorm().train()
    loss = CSN()(network, batch_of(0.0, 50.0), NOW)
    loss.backward()
    first = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    assert means(network) == pytest.approx([0.0, 5.0], abs=0.02)
    alone = OneNorm().train()
    CSN()(alone, batch_of(0.0, None), NOW).backward()
    for one, two in zip(first, (p.grad for p in alone.parameters()), strict=True):
        assert two is not None and torch.equal(one, two)


def test_the_target_begins_with_the_statistics_of_the_source_and_once_alone() -> None:
    network = OneNorm().train()
    SourceOnly()(network, batch_of(10.0, None), NOW)
    method = LoveCS()
    stages = method.stages(15_000)
    method.enter(network, stages[0], 15_000)
    assert means(network) == pytest.approx([1.0, 0.0], abs=0.02)
    method.enter(network, stages[1], 15_000)
    assert means(network) == pytest.approx([1.0, 1.0], abs=0.02)
    network.norm.norms[TARGET].reset_running_stats()
    method.enter(network, stages[2], 15_000)
    assert means(network)[1] == 0, "later labellings leave the statistics as they are"


def sight_of(*values: float, ratio: float = 1.0, before: Sequence[Steadiness] = ()) -> Sight:
    labels = torch.zeros(2, 32, 32, dtype=torch.long)
    chips = [LabelledBatch(torch.full((2, 3, 32, 32), value), labels) for value in values]
    return Sight(lambda: iter(chips), ratio, before)


def test_adabn_takes_the_plain_mean_over_the_chips_of_the_target() -> None:
    network = OneNorm().train()
    AdaBN(scales=(1.0,)).settle(network, sight_of(2.0, 4.0, 9.0))
    assert means(network) == pytest.approx([0.0, 5.0])
    source = OneNorm().train()
    SourceOnly()(source, batch_of(10.0, None), NOW)
    SourceOnly().settle(source, None)
    assert means(source)[TARGET] == means(source)[SOURCE], "source only maps by the source's"


def test_what_was_found_before_earlier_labellings_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lovecs, "look", lambda *_: {0.0: 0.5, 1.0: 0.75})
    network, method = OneNorm(), LoveCS(scales=(1.0,), statistics="auto")
    network.norm.norms[TARGET].running_mean.fill_(8.0)
    own, found = method.labelling(network, sight_of(2.0), first=False)
    assert means(own) == [0.0, 8.0] and found == {0.0: 0.5, 1.0: 0.75}
    before = [{0.0: 0.75, 1.0: 0.25}]
    own, found = method.labelling(network, sight_of(2.0, before=before), first=False)
    assert means(own) == [0.0, 0.0] and found == {0.0: 0.5, 1.0: 0.75}, "what is new, alone"
    method.settle(network, sight_of(2.0, before=before))
    assert means(network) == [0.0, 0.0]


@pytest.mark.parametrize(("statistics", "mean"), [("target", 5.0), (1.0, 5.0), (0.2, 1.0), (0.0, 0.0)])
def test_the_target_is_trusted_as_far_as_is_asked_for(statistics: str | float, mean: float) -> None:
    network = OneNorm().train()
    AdaBN(scales=(1.0,), statistics=statistics).settle(network, sight_of(2.0, 4.0, 9.0))
    assert means(network) == pytest.approx([0.0, mean]), "a share of 5, the rest of the source's 0"
    kept = OneNorm()
    kept.norm.norms[TARGET].running_mean.fill_(5.0)
    CSN(statistics=statistics).settle(kept, sight_of(70.0))
    assert means(kept) == pytest.approx([0.0, mean]), "of what was kept on the way: no chip is measured"


def test_a_share_is_found_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, ...]] = []

    def found(_network: nn.Module, chips: Iterable[LabelledBatch], form: Any) -> dict[float, float]:
        seen.extend((float(batch.images.mean()), form(OneNorm()).hundredths[0]) for batch in chips)
        return {0.0: 0.5, 0.25: 0.75, 1.0: 0.5}

    monkeypatch.setattr(lovecs, "look", found)
    network = OneNorm()
    network.norm.norms[TARGET].running_mean.fill_(8.0)
    CSN(statistics="auto").settle(network, sight_of(3.0, ratio=10 / 3))
    assert seen == [(3.0, 300)], "chips as they are, at the middle of the enlargements"
    assert means(network) == pytest.approx([0.0, 2.0])


def test_the_target_is_labelled_by_statistics_that_are_trusted_while_training_keeps_its_own() -> None:
    network, method = OneNorm().train(), LoveCS(scales=(1.0,), statistics=0.5)
    first, found = method.labelling(network, sight_of(2.0, 4.0, 9.0), first=True)
    assert isinstance(first, OneNorm) and not found
    assert means(first) == pytest.approx([0.0, 2.5]), "measured, as no step has seen the target"
    network.norm.norms[TARGET].running_mean.fill_(3.0)
    later, _ = method.labelling(network, sight_of(100.0), first=False)
    assert isinstance(later, OneNorm)
    assert means(later) == pytest.approx([0.0, 1.5]), "of what was kept on the way"
    assert means(network) == pytest.approx([0.0, 3.0])
    assert network.norm.norms[TARGET].momentum == 0.1
    assert LoveCS().labelling(network, sight_of(), first=True)[0] is network, "as published"


@pytest.mark.parametrize("statistics", ["'source'", "1.5", "-0.1", "nan", "true", "[0.5]"])
def test_statistics_that_are_none_are_refused(statistics: str) -> None:
    with pytest.raises(ConfigError, match=r"statistics: .*is neither 'target' nor 'auto' nor a share from 0"):
        read_recipe("lovecs", [f"method.statistics={statistics}"])
    assert read_recipe("lovecs", ["method.statistics=0.5"]).method.statistics == 0.5
    with pytest.raises(ConfigError, match="statistics"):
        read_recipe("lovecs", ["method.name=source-only", "method.statistics=auto"])


def test_the_published_recipe_trusts_the_target_as_it_is_and_the_light_one_finds_out() -> None:
    published, light = (read_recipe(name).method for name in ("lovecs", "lovecs-light"))
    assert isinstance(published, LoveCS) and isinstance(light, LoveCS)
    assert (published.statistics, published.portion) == ("target", 0.1)
    assert (light.statistics, light.portion) == ("auto", 0.5)


def test_the_form_that_maps_looks_at_several_enlargements() -> None:
    from citycover_models.catalogue.registry import find_preset

    card = find_preset("semantic-fpn-resnet18").card()
    network = SemanticFPN("resnet18", 4)
    assert LoveCS(scales=(1.0,)).form(network, card, 2.0).network is network
    several = LoveCS().form(network, card, 10 / 3)
    assert several.fields["activation"] == "probabilities" and several.fields["window"].size == 256
    assert "activation" not in LoveCS(score="logit").form(network, card, 1.0).fields


@pytest.mark.parametrize("ratio", [0.1, 33.3])
def test_sensors_that_are_too_far_apart_are_refused(ratio: float) -> None:
    with pytest.raises(ConfigError, match=rf"{ratio:.3g} times as large.*bridges 1/8 to 8.*resample"):
        LoveCS().target_scale(ratio)
    assert LoveCS(enlarge=False).target_scale(3.0) == 1.0
    assert LoveCS().target_scale(10 / 3) == 3.0
