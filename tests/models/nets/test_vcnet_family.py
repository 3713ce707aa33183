"""L2HNet, Paraformer, VCNet: published counts, quirks, sizes, losses, scripted and exported forms."""

from __future__ import annotations

from itertools import chain, permutations

import pytest
import torch
from torch import Tensor, nn

from citycover.errors import ModelError
from citycover_models.blocks.rp import RATIOS_VCNET, RPBlock
from citycover_models.blocks.vit import ViTEncoder, resize_positions
from citycover_models.blocks.vit_comer import ViTCoMer
from citycover_models.catalogue.coarse import PARAFORMER_TINY, VCNET_TINY
from citycover_models.catalogue.registry import presets_of
from citycover_models.imagery.aerial import POLAND_RGB
from citycover_models.nets.l2hnet import (
    L2HNet,
    cas_dva_loss,
    confident_area,
    transported_area,
    vague_area_distance,
)
from citycover_models.nets.paraformer import Paraformer, dice_loss, plat_loss
from citycover_models.nets.vcnet import VCNet

PRESETS = presets_of("l2hnet") | presets_of("paraformer") | presets_of("vcnet")


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _dn(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def _shake(network: nn.Module) -> nn.Module:
    """Leave the initial zeros (gamma, offsets, positions), so that every path carries something."""
    torch.manual_seed(0)
    with torch.no_grad():
        for p in network.parameters():
            if not p.any():
                p.normal_(std=0.1)
    return network.eval()


@pytest.fixture(scope="module")
def networks() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {
        "l2hnet": _shake(L2HNet(5, width=16, blocks=2)),
        "l2hnet-rgb": _shake(L2HNet(5, width=16, blocks=2, statistics=POLAND_RGB)),
        "paraformer": _shake(Paraformer(5, widths=PARAFORMER_TINY)),
        "paraformer-rgb": _shake(
            Paraformer(5, widths=PARAFORMER_TINY, statistics=POLAND_RGB, void_channel=False)
        ),
        "vcnet": _shake(VCNet(5, widths=VCNET_TINY)),
        "vcnet-rgb": _shake(VCNet(5, widths=VCNET_TINY, statistics=POLAND_RGB)),
        "vcnet-faithful": _shake(VCNet(5, widths=VCNET_TINY, faithful=True)),
    }


NAMES = ("l2hnet", "l2hnet-rgb", "paraformer", "paraformer-rgb", "vcnet", "vcnet-rgb", "vcnet-faithful")


@pytest.mark.parametrize("name", [n for n, p in PRESETS.items() if p.published_parameters])
def test_parameters_are_as_many_as_published(name: str) -> None:
    with torch.device("meta"):
        network = PRESETS[name].build()
    assert _count(network) == PRESETS[name].published_parameters


def test_encoders_and_trunks_have_the_published_counts() -> None:
    with torch.device("meta"):
        narrow, wide = PRESETS["paraformer-w64"], PRESETS["paraformer-w128"]
        assert _count(narrow.build().encoder) == 34_242_704  # type: ignore[arg-type]
        assert _count(wide.build().encoder) == 36_920_352  # type: ignore[arg-type]
        assert _count(VCNet(4).encoder) == 38_382_447
        assert round(_count(L2HNet(width=64).trunk) / 1e6, 3) == 0.281
        assert round(_count(L2HNet(width=128).trunk) / 1e6, 3) == 1.116


def test_in_faithful_form_the_published_number_of_parameters_gets_no_gradient() -> None:
    small = VCNet(4, widths=VCNET_TINY, faithful=True)
    cnn, vit = small.branches(_dn(2, 4, 32, 32))
    (cnn.sum() + vit.sum()).backward()
    idle = {name for name, p in small.named_parameters() if p.grad is None}
    assert idle == {name for name, _ in small.named_parameters() if name.startswith("unused.")}
    with torch.device("meta"):
        assert _count(PRESETS["vcnet-faithful"].build().unused) == 1_815_830  # type: ignore[arg-type]


def test_in_default_form_every_parameter_gets_a_gradient() -> None:
    for network in (VCNet(4, widths=VCNET_TINY), Paraformer(4, widths=PARAFORMER_TINY)):
        cnn, vit = network.branches(_dn(2, 4, 32, 32))
        (cnn.sum() + vit.sum()).backward()
        assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_branches_of_the_block_are_floored_one_by_one() -> None:
    block = RPBlock(64, RATIOS_VCNET)
    fuse = block.fuse[0]
    assert isinstance(fuse, nn.Conv2d)
    assert fuse.in_channels == 64 + 51


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 32, 32), (2, 64, 96)])
def test_logits_lie_on_the_grid_of_the_input(
    networks: dict[str, nn.Module], name: str, shape: tuple[int, int, int]
) -> None:
    n, y, x = shape
    bands = 3 if name.endswith("rgb") else 4
    with torch.inference_mode():
        out = networks[name](_dn(n, bands, y, x))
    assert out.shape == (n, 5, y, x)
    assert out.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_bytes_and_floats_of_the_same_numbers_give_the_same_map(
    networks: dict[str, nn.Module], name: str
) -> None:
    x = _dn(1, 3 if name.endswith("rgb") else 4, 32, 32)
    with torch.inference_mode():
        assert torch.equal(networks[name](x), networks[name](x.float()))


@pytest.mark.parametrize(
    "name", ["l2hnet", "paraformer", "vcnet", pytest.param("vcnet-faithful", marks=pytest.mark.slow)]
)
def test_scripted_equals_eager_at_several_sizes(networks: dict[str, nn.Module], name: str) -> None:
    network = networks[name]
    scripted = torch.jit.script(network)
    with torch.inference_mode():
        for shape in ((1, 4, 64, 32), (2, 4, 32, 96), (1, 4, 32, 32)):
            x = _dn(*shape)
            torch.testing.assert_close(scripted(x), network(x), rtol=1e-5, atol=1e-5)


def test_l2hnet_takes_any_size_and_sees_23_pixels() -> None:
    network = _shake(L2HNet(3))
    x = _dn(1, 4, 41, 37).float().requires_grad_()
    out = network(x)
    assert out.shape == (1, 3, 41, 37)
    out[0, :, 20, 18].sum().backward()
    assert x.grad is not None
    seen = x.grad.abs().amax(dim=(0, 1)).nonzero()
    assert seen.amin(0).tolist() == [20 - 11, 18 - 11]
    assert seen.amax(0).tolist() == [20 + 11, 18 + 11]


@pytest.mark.parametrize(
    ("name", "size", "nearest"),
    [("paraformer", (40, 33), "48 x 32"), ("vcnet", (100, 48), "96 x 64"), ("vcnet", (16, 32), "32 x 32")],
)
def test_other_sizes_are_refused_with_the_nearest(
    networks: dict[str, nn.Module], name: str, size: tuple[int, int], nearest: str
) -> None:
    with pytest.raises(ModelError, match=f"{size[0]} x {size[1]} px.*nearest that fits is {nearest}"):
        networks[name](_dn(1, 4, *size))


def test_the_void_channel_is_trained_and_left_out_of_maps(networks: dict[str, nn.Module]) -> None:
    for name in ("paraformer", "vcnet-faithful"):
        network = networks[name]
        assert isinstance(network, Paraformer | VCNet)
        with torch.inference_mode():
            cnn, vit = network.branches(_dn(1, 4, 32, 32))
        assert cnn.shape == vit.shape == (1, 6, 32, 32)


def test_a_map_is_the_mean_of_both_branches(networks: dict[str, nn.Module]) -> None:
    network, x = networks["vcnet-faithful"], _dn(1, 4, 32, 32)
    assert isinstance(network, VCNet)
    with torch.inference_mode():
        cnn, vit = network.branches(x)
        torch.testing.assert_close(network(x), ((cnn + vit) / 2)[:, 1:])


def test_positions_are_the_learned_ones_on_their_own_grid() -> None:
    positions = torch.randn(1, 196, 8)
    assert torch.equal(resize_positions(positions, 14, 14, 14), positions)
    assert resize_positions(positions, 14, 3, 5).shape == (1, 15, 8)


def test_vit_weights_are_named_as_in_the_public_ones() -> None:
    with torch.device("meta"):
        shapes = {k: tuple(v.shape) for k, v in ViTEncoder(768, 12, 12).state_dict().items()}
        tiny = {k: tuple(v.shape) for k, v in VCNet(4).backbone.state_dict().items()}
    known = {
        "blocks.11.attn.qkv.weight": (2304, 768),
        "blocks.11.attn.proj.bias": (768,),
        "blocks.0.mlp.fc1.weight": (3072, 768),
        "blocks.0.norm2.weight": (768,),
        "norm.weight": (768,),
    }
    assert {name: shapes[name] for name in known} == known
    assert tiny["blocks.11.attn.qkv.weight"] == (576, 192)


def test_a_new_vit_comer_begins_as_the_vit_alone() -> None:
    torch.manual_seed(0)
    comer = ViTCoMer(8, dim=24, depth=4, heads=2, deform_heads=2, base=8).eval()
    seen: list[Tensor] = []
    comer.blocks[-1].register_forward_hook(lambda _m, _i, out: seen.append(out))
    x = torch.randn(1, 8, 24)
    with torch.inference_mode():
        comer(x, torch.randn(1, 8, 32, 64))
        plain = x
        for block in comer.blocks:
            plain = block(plain)
        assert torch.equal(seen[0], plain)
        for gamma in (stage.gamma for stage in comer.to_vit):
            assert isinstance(gamma, Tensor)
            gamma.fill_(0.5)
        comer(x, torch.randn(1, 8, 32, 64))
    assert not torch.allclose(seen[-1], plain)


# -- losses --


def test_where_the_cnn_agrees_everywhere_the_vit_learns_from_all_labels() -> None:
    labels = torch.randint(1, 5, (2, 8, 8))
    cnn = 20.0 * nn.functional.one_hot(labels, 5).permute(0, 3, 1, 2).float()
    vit = torch.randn(2, 5, 8, 8)
    expected = nn.functional.cross_entropy(vit, labels)
    torch.testing.assert_close(plat_loss(cnn, vit, labels, weights=(0.0, 1.0)), expected)


@pytest.mark.parametrize("aux_loss", ["ce", "dice"])
@pytest.mark.parametrize("labelled", [True, False])
def test_where_nothing_agrees_the_loss_is_finite_and_the_vit_learns_nothing(
    aux_loss: str, labelled: bool
) -> None:
    labels = torch.full((1, 4, 4), 2 if labelled else 0)
    cnn = torch.zeros(1, 3, 4, 4)
    cnn[:, 1] = 5.0
    vit = torch.randn(1, 3, 4, 4)
    cnn.requires_grad_()
    vit.requires_grad_()
    loss = plat_loss(cnn, vit, labels, aux_loss=aux_loss)  # type: ignore[arg-type]
    loss.backward()
    assert (loss > 0) == labelled
    assert vit.grad is not None
    assert not vit.grad.any()
    assert cnn.grad is not None
    assert cnn.grad.isfinite().all()
    assert cnn.grad.any() == labelled


def test_dice_of_a_certain_and_right_map_is_zero() -> None:
    labels = torch.tensor([[[0, 1], [1, 255]]])
    right = 50.0 * nn.functional.one_hot(labels.clamp(max=2), 3).permute(0, 3, 1, 2).float()
    assert dice_loss(right, labels, ignore=255).item() == pytest.approx(0.0, abs=1e-6)
    assert dice_loss(-right, labels, ignore=255).item() > 0.3


def test_confident_pixels_agree_with_their_label_and_reach_the_mean_of_their_class() -> None:
    p = torch.tensor([[0.9, 0.6, 0.8, 0.7], [0.1, 0.4, 0.2, 0.3]]).view(1, 2, 1, 4)
    labels = torch.tensor([[[0, 0, 1, 255]]])  # class 0 is predicted everywhere, with mean 0.75
    assert confident_area(p, labels, 255).tolist() == [[[True, False, False, False]]]
    assert confident_area(p, labels, 255, "agree").tolist() == [[[True, True, False, False]]]
    equal = torch.full((1, 3, 8, 8), 0.2) + torch.tensor([0.4, 0.0, 0.0]).view(1, 3, 1, 1)
    assert confident_area(equal, torch.zeros(1, 8, 8, dtype=torch.long), 255).all()


@pytest.mark.parametrize("seed", range(4))
def test_a_token_is_confident_if_the_cheapest_of_all_plans_gives_it_its_own_label(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    p = torch.randn(1, 3, 3, 3, generator=generator).mul(2).softmax(dim=1)
    labels = torch.randint(0, 3, (1, 3, 3), generator=generator)
    labels[0, 2, 2] = 255  # in no plan
    tokens, own = p.flatten(2)[0].T[:8], labels.flatten()[:8]
    cost = (tokens[:, None] - nn.functional.one_hot(own, 3)[None]).square().sum(-1)
    plans = torch.tensor(list(permutations(range(8))))  # (8!, 8)
    best = plans[cost[torch.arange(8), plans].sum(dim=1).argmin()]
    expected = torch.cat([own[best] == own, torch.tensor([False])]).view(1, 3, 3)
    assert torch.equal(transported_area(p, labels, 255, side=3), expected)
    doubled = [t.repeat_interleave(2, -1).repeat_interleave(2, -2) for t in (labels, expected)]
    large = nn.functional.interpolate(p, scale_factor=2, mode="nearest")
    assert torch.equal(transported_area(large, doubled[0], 255, side=3), doubled[1])


def test_transport_accepts_a_right_map_whole_and_nothing_where_there_is_no_label() -> None:
    labels = torch.randint(0, 4, (2, 6, 5)).repeat_interleave(8, 1).repeat_interleave(8, 2)
    p = nn.functional.one_hot(labels, 4).permute(0, 3, 1, 2).float() * 0.6 + 0.1
    assert confident_area(p, labels, 255, "ot").float().mean() > 0.9  # tokens on edges are mixed
    assert not confident_area(p, torch.full_like(labels, 255), 255, "ot").any()
    wrong = (labels[:1] + 1) % 4
    assert confident_area(p[:1], wrong, 255, "ot").float().mean() < 0.5


def test_the_vague_area_distance_equals_its_definition() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 6, 5, 5)
    predicted, confident = torch.randint(0, 3, (2, 5, 5)), torch.rand(2, 5, 5) > 0.4
    total = 0.0
    for a, k in chain.from_iterable(((a, k) for k in range(4)) for a in (features.amax(1), features.mean(1))):
        of_class = predicted == k
        if not of_class.any():  # class 3
            continue
        for part in (confident & of_class, ~confident & of_class):
            if part.any():
                share = part.sum() / of_class.sum()
                total += float(share * (a[part].mean() - a[of_class].mean()) ** 2)
    got = vague_area_distance(features, predicted, confident, 4)
    assert got.item() == pytest.approx(0.5 * total, rel=1e-4)


def test_the_l2hnet_loss_reaches_features_and_survives_without_a_confident_pixel() -> None:
    network = L2HNet(3, width=16, blocks=1)
    features = network.features(_dn(1, 4, 12, 12))
    labels = torch.randint(0, 3, (1, 12, 12))
    distance = cas_dva_loss(network.head(features), features, labels, gamma=0.5)
    distance.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    empty = cas_dva_loss(logits, torch.randn(1, 8, 4, 4), torch.full((1, 4, 4), 255))
    empty.backward()
    assert empty.isfinite()
    assert logits.grad is not None
    assert not logits.grad.any()


# -- cards and files --


def test_presets_are_listed_with_cards_that_fit_them() -> None:
    for name, preset in PRESETS.items():
        card = preset.card()
        assert (preset.name, card.name) == (name, name)
        if "tiny" not in name and "l2hnet" not in name:
            continue  # the same code in another size, counted above
        with torch.device("meta"):
            network = preset.build().eval()
            out = network(torch.empty(1, card.bands, 64, 64))
        assert card.window.multiple == network.multiple
        assert out.shape == (1, len(card.channels), 64, 64)


@pytest.mark.parametrize(
    "name",
    [
        "l2hnet",
        pytest.param("paraformer", marks=pytest.mark.slow),
        # Two minutes: its pyramid of token lists is 2,300 operations of symbolic sizes.
        pytest.param("vcnet", marks=pytest.mark.slow),
    ],
)
def test_exported_equals_eager_at_other_sizes(networks: dict[str, nn.Module], name: str) -> None:
    network = networks[name]
    free = torch.export.Dim.AUTO
    with torch.no_grad():
        program = torch.export.export(
            network, (_dn(2, 4, 96, 128),), dynamic_shapes=({0: free, 2: free, 3: free},)
        ).module()
        for shape in ((1, 4, 64, 96), (3, 4, 128, 64)):
            x = _dn(*shape)
            torch.testing.assert_close(program(x), network(x), rtol=1e-5, atol=1e-5)
