"""HRDA: context and details, their crops by hand, scripted and exported forms, presets."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from citycover.errors import ModelError
from citycover_models.catalogue.registry import presets_of
from citycover_models.nets.daformer import DAFormer
from citycover_models.nets.hrda import HRDA, ScaleAttention

PRESETS = presets_of("hrda")


def _dn(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape).float()


@pytest.fixture(scope="module")
def network() -> HRDA:
    torch.manual_seed(0)
    return HRDA("b0").eval()


class Mean(nn.Module):
    """A backbone and head in the place of the network's: each pixel at stride 4 is its own mean."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [F.avg_pool2d(x, 4)]


class First(nn.Module):
    def forward(self, maps: list[Tensor]) -> Tensor:
        return maps[0]


class Always(nn.Module):
    """A share of the details that is the same everywhere."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, maps: list[Tensor]) -> Tensor:
        return torch.full_like(maps[0], self.share)


def _transparent(share: float) -> HRDA:
    """Each logit is the mean of its pixels: what details and context make of an image is known."""
    network = HRDA("b0", 3, mean=(0.0,) * 3, std=(1.0,) * 3).eval()
    network.backbone, network.decode_head, network.scale_attention = Mean(), First(), Always(share)
    return network


def test_crops_that_overlap_are_averaged_each_in_its_place() -> None:
    image = torch.rand(2, 3, 64, 128)
    details = _transparent(1.0).encode(image)[0]
    torch.testing.assert_close(details, F.avg_pool2d(image, 4))


def test_where_crops_differ_the_mean_counts_those_that_cover() -> None:
    class ByCrop(nn.Module):
        def forward(self, x: Tensor) -> list[Tensor]:
            number = torch.arange(len(x), dtype=x.dtype)[:, None, None, None]
            return [number.expand(len(x), 3, x.shape[2] // 4, x.shape[3] // 4)]

    network = _transparent(1.0)
    network.backbone = ByCrop()
    details = network.encode(torch.zeros(1, 3, 64, 64))[0][0, 0]
    quarters = details[::4, ::4]
    wanted = [  # crops 0 1 2 / 3 4 5 / 6 7 8; a corner is seen by one, an edge by two, the middle by four
        [0, 0.5, 1.5, 2],
        [1.5, 2, 3, 3.5],
        [4.5, 5, 6, 6.5],
        [6, 6.5, 7.5, 8],
    ]
    torch.testing.assert_close(quarters, torch.tensor(wanted))
    torch.testing.assert_close(details, quarters.repeat_interleave(4, 0).repeat_interleave(4, 1))


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_logits_are_the_details_by_their_share_and_the_context_for_the_rest(share: float) -> None:
    image = torch.rand(1, 3, 64, 64)
    logits = _transparent(share)(image)
    details = F.avg_pool2d(image, 4)
    context = F.interpolate(F.avg_pool2d(image, 8), scale_factor=2.0, mode="bilinear")
    wanted = F.interpolate(share * details + (1 - share) * context, scale_factor=4.0, mode="bilinear")
    torch.testing.assert_close(logits, wanted)


def test_a_step_looks_at_one_crop_and_at_the_context_alone_around_it() -> None:
    network, image = _transparent(1.0), torch.rand(2, 3, 128, 64)
    places = set()
    for seed in range(40):
        torch.manual_seed(seed)
        seen = network.glimpse(image)
        top, left = seen.rows.start, seen.columns.start
        places.add((top, left))
        assert (seen.rows.stop - top, seen.columns.stop - left) == (64, 32)
        own = F.avg_pool2d(image, 4)
        crop = image[:, :, seen.rows, seen.columns]
        enlarged = F.interpolate(F.avg_pool2d(crop, 4), scale_factor=4.0, mode="bilinear")
        torch.testing.assert_close(seen.logits, enlarged)
        inside = torch.zeros(1, 1, 16, 8)
        inside[:, :, top // 8 : top // 8 + 8, left // 8 : left // 8 + 4] = 1
        share = F.interpolate(inside, scale_factor=2.0, mode="bilinear")
        laid = own * inside.repeat_interleave(2, 2).repeat_interleave(2, 3)
        around = F.interpolate((1 - inside) * F.avg_pool2d(image, 8), scale_factor=2.0, mode="bilinear")
        wanted = F.interpolate(around + share * laid, scale_factor=4.0, mode="bilinear")
        torch.testing.assert_close(network.decode(seen.maps), wanted)
    tops, lefts = ({place[side] for place in places} for side in (0, 1))
    assert tops == set(range(0, 65, 8)) and lefts == set(range(0, 33, 8)), "as far as both ends"


def test_the_light_head_gives_shares_of_each_class() -> None:
    torch.manual_seed(0)
    head = ScaleAttention((4, 8), 3, channels=6).eval()
    with torch.inference_mode():
        share = head([torch.randn(2, 4, 8, 6), torch.randn(2, 8, 4, 3)])
    assert share.shape == (2, 3, 8, 6)
    assert bool(((share > 0) & (share < 1)).all()) and len(share[0, :, 0, 0].unique()) == 3


def test_it_is_daformer_and_a_light_head_so_that_daformers_checkpoints_load(network: HRDA) -> None:
    own, plain = network.state_dict(), DAFormer("b0").state_dict()
    assert {name: t.shape for name, t in plain.items()} == {
        name: t.shape for name, t in own.items() if not name.startswith("scale_attention.")
    }


@pytest.mark.parametrize("shape", [(1, 64, 64), (2, 64, 128)])
def test_logits_lie_on_the_grid_of_the_input(network: HRDA, shape: tuple[int, int, int]) -> None:
    n, y, x = shape
    with torch.inference_mode():
        assert network(_dn(n, 3, y, x)).shape == (n, 5, y, x)


@pytest.mark.parametrize("size", [(64, 96), (32, 64)])
def test_other_sizes_are_refused_with_the_nearest(network: HRDA, size: tuple[int, int]) -> None:
    nearest = {(64, 96): "64 x 128", (32, 64): "64 x 64"}[size]
    with pytest.raises(ModelError, match=f"{size[0]} x {size[1]} px.*nearest that fits is {nearest}"):
        network(_dn(1, 3, *size))


def test_scripted_equals_eager(network: HRDA) -> None:
    scripted = torch.jit.script(network)
    with torch.inference_mode():
        for x in (_dn(1, 3, 64, 64), _dn(2, 3, 128, 64)):
            torch.testing.assert_close(scripted(x), network(x), rtol=1e-5, atol=1e-5)
    with pytest.raises(torch.jit.Error, match="nearest that fits is 64 x 64"):
        scripted(_dn(1, 3, 64, 65))


@pytest.mark.slow
def test_exported_equals_eager_at_other_sizes() -> None:
    torch.manual_seed(0)
    network = HRDA("b0").eval()
    for i in range(1, 5):  # one block a stage says as much as two, and is traced in half the time
        name = f"block{i}"
        setattr(network.backbone, name, getattr(network.backbone, name)[:1])
    shapes = ({0: torch.export.Dim("n", max=64), 2: 64 * torch.export.Dim("y", max=64)},)
    with torch.no_grad():
        program = torch.export.export(network, (_dn(2, 3, 128, 64),), dynamic_shapes=shapes)
        other = _dn(1, 3, 256, 64)
        torch.testing.assert_close(program.module()(other), network(other), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", PRESETS)
def test_a_card_says_what_its_network_does(name: str) -> None:
    preset = PRESETS[name]
    card = preset.card()
    with torch.device("meta"):
        net = preset.build()
        out = net.eval()(torch.empty(1, card.bands, card.window.size, card.window.size))
    assert (preset.name, card.name) == (name, name) and isinstance(net, HRDA)
    assert (card.window.multiple, card.output_scale) == (2 * net.multiple, net.upscale)
    side = card.window.size * card.output_scale
    assert out.shape == (1, len(card.channels), side, side)
