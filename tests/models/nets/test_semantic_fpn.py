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
from citycover_models.nets.semantic_fpn import MultiScale, SemanticFPN, scales_between


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


class Echo(torch.nn.Module):
    """Gives back what it is given, and remembers how large it was."""

    def __init__(self) -> None:
        super().__init__()
        self.sides: list[tuple[int, int]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.sides.append((x.shape[2], x.shape[3]))
        return x


def test_scores_of_several_scales_are_averaged_on_the_grid_of_the_image() -> None:
    echo = Echo()
    x = torch.full((1, 3, 32, 48), 7.0)
    scores = MultiScale(echo, (2.0, 3.0), "logit")(x)
    assert echo.sides == [(64, 96), (96, 160)], "sides are multiples of 32, the nearest, half of one upwards"
    torch.testing.assert_close(scores, x)
    mean = MultiScale(echo, (1.0, 2.0))(torch.zeros(1, 4, 32, 32))
    torch.testing.assert_close(mean, torch.full((1, 4, 32, 32), 0.25))


def test_enlargements_bracket_the_ratio_of_the_two_ground_sample_distances() -> None:
    assert scales_between(10 / 3) == (2.0, 2.5, 3.0, 3.5), "the published ones, for 1.0 m and 0.3 m"
    assert scales_between(2.0) == (1.2, 1.5, 1.8, 2.1)
    assert scales_between(0.5) == (0.75, 1.0, 1.25)


def test_several_scales_export_in_both_formats(network: SemanticFPN) -> None:
    several = MultiScale(fold_domain(network), (0.75, 1.25)).eval()
    x = torch.rand(2, 3, 128, 64) * 255
    scripted = torch.jit.script(several)
    shapes = ({0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO},)
    with torch.no_grad():
        program = torch.export.export(several, (torch.rand(2, 3, 96, 64) * 255,), dynamic_shapes=shapes)
        torch.testing.assert_close(scripted(x), several(x), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(program.module()(x), several(x), rtol=1e-5, atol=1e-6)
