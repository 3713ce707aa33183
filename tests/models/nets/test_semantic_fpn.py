from __future__ import annotations

import pytest
import torch

from citycover_models.blocks.domain_norm import (
    SOURCE,
    TARGET,
    DomainBatchNorm2d,
    copy_domain,
    fold_domain,
    set_domain,
)
from citycover_models.blocks.resnet import ResNet
from citycover_models.nets.semantic_fpn import (
    SemanticFPN,
    class_thresholds,
    multi_scale_scores,
    pseudo_labels,
    self_training_loss,
)


@pytest.fixture(scope="module")
def network() -> SemanticFPN:
    """Trained for two steps, so that the statistics of both domains are known and differ."""
    torch.manual_seed(0)
    network = SemanticFPN("resnet18", 4).train()
    for domain, brightness in ((SOURCE, 60.0), (TARGET, 180.0)):
        set_domain(network, domain)
        with torch.no_grad():
            network(torch.rand(2, 3, 64, 64) * 30 + brightness)
    return network.eval()


def test_folded_to_a_domain_equals_the_network_in_that_domain(network: SemanticFPN) -> None:
    x = torch.rand(1, 3, 64, 96) * 255
    with torch.inference_mode():
        seen = {}
        for domain in (SOURCE, TARGET):
            set_domain(network, domain)
            seen[domain] = network(x)
            folded = fold_domain(network, domain)
            assert not any(isinstance(m, DomainBatchNorm2d) for m in folded.modules())
            torch.testing.assert_close(folded(x), seen[domain], rtol=0, atol=1e-5)
    assert not torch.allclose(seen[SOURCE], seen[TARGET], atol=1e-3), (
        "the domains have statistics of their own"
    )


def test_a_domain_trains_its_own_statistics_alone_and_shares_scale_and_shift() -> None:
    torch.manual_seed(1)
    norm = DomainBatchNorm2d(torch.nn.BatchNorm2d(3))
    norm.domain = TARGET
    norm(torch.randn(4, 3, 8, 8) + 5)
    assert torch.equal(norm.norms[SOURCE].running_mean, torch.zeros(3))
    assert (norm.norms[TARGET].running_mean > 0.4).all()
    assert norm.norms[SOURCE].weight is norm.norms[TARGET].weight
    copy_domain(norm, TARGET, SOURCE)
    assert torch.equal(norm.norms[SOURCE].running_mean, norm.norms[TARGET].running_mean)


def test_plain_encoder_weights_enter_before_the_domains_are_split() -> None:
    torch.manual_seed(2)
    plain = ResNet("resnet18", 3)
    network = SemanticFPN("resnet18", 4, domains=1)
    network.encoder.load_state_dict(plain.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(network.encoder.eval()(x)[4], plain.eval()(x)[4])


@pytest.mark.parametrize("decoder", ["asymmetric", "dense_multiscale"])
def test_both_decoders_give_the_published_shapes(decoder) -> None:
    network = SemanticFPN("resnet18", 4, decoder=decoder, domains=1).eval()
    with torch.inference_mode():
        maps = network.encoder(torch.randn(1, 3, 64, 128))[1:]
        pyramid = network.pyramid(maps)
        assert [tuple(p.shape[1:]) for p in pyramid] == [
            (256, 16, 32),
            (256, 8, 16),
            (256, 4, 8),
            (256, 2, 4),
        ]
        assert network.decoder(pyramid).shape == (1, 128, 16, 32)
        assert network(torch.rand(2, 3, 64, 128)).shape == (2, 4, 64, 128)


def test_the_best_tenth_of_each_class_is_labelled() -> None:
    torch.manual_seed(3)
    scores = torch.randn(1, 3, 64, 64).softmax(dim=1)
    thresholds = class_thresholds(scores, portion=0.1, every=1)
    labels = pseudo_labels(scores, thresholds)
    predicted = scores.argmax(1)
    for c in range(3):
        kept = ((labels == c) & (predicted == c)).sum() / (predicted == c).sum()
        assert kept == pytest.approx(0.1, abs=0.01)
    assert (labels == 255).any()
    never = torch.tensor([[0.9, 0.1]]).view(1, 2, 1, 1)
    assert class_thresholds(never, every=1)[1] == 1, "a class that is never best lets nothing pass"


def test_scores_of_several_scales_are_averaged_on_the_grid_of_the_image() -> None:
    sides = []

    def network(x: torch.Tensor) -> torch.Tensor:
        sides.append(tuple(x.shape[2:]))
        return x

    x = torch.full((1, 3, 32, 48), 7.0)
    scores = multi_scale_scores(network, x, (2.0, 3.0), score="logit")
    assert sides == [(64, 96), (96, 128)], "sides are multiples of 32, the nearest"
    torch.testing.assert_close(scores, x)


def test_a_batch_without_pseudo_labels_teaches_nothing_and_stays_finite() -> None:
    logits = torch.randn(1, 4, 8, 8, requires_grad=True)
    labels = torch.zeros(1, 8, 8)
    nothing = torch.full((1, 8, 8), 255)
    alone = self_training_loss(logits, labels, logits, nothing)
    torch.testing.assert_close(alone, torch.nn.functional.cross_entropy(logits, labels.long()))
    empty = self_training_loss(logits, nothing, logits, nothing)
    empty.backward()
    assert float(empty.detach()) == 0 and logits.grad is not None and (logits.grad == 0).all()
