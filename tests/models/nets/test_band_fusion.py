"""Band fusion: how groups lie on each other, sizes, label grid, dense classes, scripted, exported."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from citycover.errors import ModelError
from citycover_models.blocks.band_encoders import Backbone, Mode, make_encoder, make_pool, on_grid_of
from citycover_models.catalogue.registry import presets_of
from citycover_models.export.write import export_pt2
from citycover_models.nets.band_fusion import (
    CorrelationHead,
    DenseFusion,
    LateFusionWithout60,
    SceneFusion,
    focal_loss,
    label_correlation,
)

PRESETS = presets_of("band_fusion")

MODES: tuple[Mode, ...] = get_args(Mode)
# Each encoder runs once, for labels or for classes; the cards' test sees all of them without numbers.
SCENES: list[tuple[Mode, Backbone]] = [
    ("early", "efficientnet-b0"),
    ("intermediate", "resnet18"),
    ("late", "efficientnet-b0"),
]
DENSE: list[tuple[Mode, Backbone]] = [
    ("early", "resnet18"),
    ("intermediate", "efficientnet-b0"),
    ("late", "resnet18"),
]
Groups = tuple[Tensor, Tensor, Tensor]


def groups_of(y: int, x: int, n: int = 1) -> Groups:
    """Raw numbers of three groups that cover the same ground."""
    sides = [(4, y, x), (6, -(-y // 2), -(-x // 2)), (2, -(-y // 6), -(-x // 6))]
    b10, b20, b60 = (torch.randint(0, 5000, (n, *side)).float() for side in sides)
    return b10, b20, b60


@pytest.fixture(scope="module", params=SCENES, ids="-".join)
def scene(request: pytest.FixtureRequest) -> SceneFusion:
    torch.manual_seed(0)
    return SceneFusion(*request.param).eval()


@pytest.fixture(scope="module", params=DENSE, ids="-".join)
def dense(request: pytest.FixtureRequest) -> DenseFusion:
    torch.manual_seed(0)
    return DenseFusion(*request.param).eval()


def test_a_window_gives_one_vector_spread_over_its_cells(scene: SceneFusion) -> None:
    groups = groups_of(120, 120, n=2)
    with torch.inference_mode():
        cells, vector = scene(*groups), scene.scene_logits(*groups)
        assert scene(*groups_of(120, 180)).shape == (1, 19, 2, 3)
    assert cells.shape == (2, 19, 2, 2)
    assert torch.equal(cells, vector[:, :, None, None].expand(-1, -1, 2, 2))


@pytest.mark.parametrize(("backbone", "channels"), [("resnet18", 2000), ("efficientnet-b0", 1280 + 1280)])
def test_late_fusion_can_do_without_the_bands_of_60_m(backbone: Backbone, channels: int) -> None:
    torch.manual_seed(0)
    network = LateFusionWithout60(backbone).eval()
    b10, b20, b60 = groups_of(120, 180)
    assert network.pool.channels == channels, "3328 with EfficientNet-B5"
    with torch.inference_mode():
        two, three = network(b10, b20), network(b10, b20, b60 * 0)
        scripted = torch.jit.script(network)(b10, b20)
        torch.testing.assert_close(scripted, two, rtol=1e-5, atol=1e-5)
    assert two.shape == (1, 19, 2, 3) and torch.equal(two, three)
    card = PRESETS["band-fusion-late-resnet18-without-60m"].card()
    assert [group.name for group in card.groups] == ["10m", "20m"]


@pytest.mark.parametrize("side", [126, 121])
def test_a_scene_may_end_within_a_coarse_pixel(scene: SceneFusion, side: int) -> None:
    with torch.inference_mode():
        logits = scene.scene_logits(*groups_of(side, side - 1))
    assert logits.shape == (1, 19)
    assert logits.isfinite().all()


def test_dense_logits_lie_on_the_grid_of_10_m(dense: DenseFusion) -> None:
    with torch.inference_mode():
        for n, y, x in ((1, 96, 96), (2, 60, 72)):
            logits = dense(*groups_of(y, x, n))
            assert logits.shape == (n, 19, y, x)
            assert logits.isfinite().all()


def test_scripted_equals_eager(scene: SceneFusion) -> None:
    scripted = torch.jit.script(scene)
    with torch.inference_mode():
        for groups in (groups_of(120, 120), groups_of(120, 180, n=2)):
            torch.testing.assert_close(scripted(*groups), scene(*groups), rtol=1e-5, atol=1e-5)
        odd = groups_of(101, 98)
        torch.testing.assert_close(
            scripted.scene_logits(*odd), scene.scene_logits(*odd), rtol=1e-5, atol=1e-5
        )


def test_scripted_dense_equals_eager(dense: DenseFusion) -> None:
    scripted = torch.jit.script(dense)
    with torch.inference_mode():
        for groups in (groups_of(96, 96), groups_of(60, 72, n=2)):
            torch.testing.assert_close(scripted(*groups), dense(*groups), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["early", "late"])
def test_exported_equals_eager_for_another_batch(mode: Mode) -> None:
    scene = SceneFusion(mode, "resnet18").eval()
    n = torch.export.Dim("n", max=64)
    with torch.no_grad():
        program = torch.export.export(
            scene, groups_of(120, 120, n=2), dynamic_shapes=({0: n}, {0: n}, {0: n})
        )
        other = groups_of(120, 120, n=3)
        torch.testing.assert_close(program.module()(*other), scene(*other), rtol=1e-5, atol=1e-5)


def test_a_graph_that_joins_coarse_maps_is_not_tied_to_whether_they_had_to_be_cut() -> None:
    class Join(nn.Module):
        def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
            return torch.cat([fine, on_grid_of(coarse, 2.0, fine)], dim=1)

    free = torch.export.Dim.AUTO
    sizes = [((6, 7), (4, 4)), ((6, 8), (3, 4)), ((9, 8), (4, 4))]  # cut, as it is, repeated
    windows = [(torch.rand(1, 2, *fine), torch.rand(1, 3, *coarse)) for fine, coarse in sizes]
    for example in windows:
        program = torch.export.export(Join(), example, dynamic_shapes=({2: free, 3: free},) * 2).module()
        for fine, coarse in windows:
            torch.testing.assert_close(program(fine, coarse), Join()(fine, coarse))


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_a_dense_network_becomes_a_pt2_file_of_any_window(tmp_path: Path, mode: Mode) -> None:
    preset = PRESETS[f"band-fusion-{mode}-resnet18-dense"]
    report = export_pt2(preset.build(), preset.card(), tmp_path / "m.pt2")
    assert len(report.sides) == 3 and report.difference <= 1e-5


def test_windows_off_the_cells_are_refused_with_the_nearest() -> None:
    scene = SceneFusion("late", "resnet18").eval()
    for side, nearest in ((60, 120), (130, 120), (160, 180)):
        with pytest.raises(
            ModelError, match=f"{side} x {side} px.*nearest that fits is {nearest} x {nearest}"
        ):
            scene(*groups_of(side, side))
    with pytest.raises(ModelError, match="at least 97"):
        scene.scene_logits(*groups_of(96, 120))


def test_dense_windows_are_whole_pixels_where_bands_join() -> None:
    with pytest.raises(ModelError, match=r"multiples of 12.*nearest that fits is 96 x 108"):
        DenseFusion("early", "resnet18")(*groups_of(97, 106))


def test_groups_that_cover_other_ground_are_refused() -> None:
    b10, b20, b60 = groups_of(120, 120)
    with pytest.raises(ModelError, match=r"60 x 59 of 20 m.*needs 60 x 60 and 20 x 20"):
        SceneFusion("early", "resnet18")(b10, b20[..., :59], b60)


@pytest.mark.parametrize(("factor", "ratio"), [(2.0, 2), (6.0, 6)])
def test_coarse_pixels_stay_on_their_ground(factor: float, ratio: int) -> None:
    coarse = torch.rand(1, 2, 4, 5)
    like = torch.empty(1, 1, 4 * ratio - 1, 5 * ratio - 1)
    fine = on_grid_of(coarse, factor, like)
    assert fine.shape[2:] == like.shape[2:]
    # The far edge only cuts: what was there before does not move.
    whole = F.interpolate(coarse, size=(4 * ratio, 5 * ratio), mode="bilinear", align_corners=False)
    torch.testing.assert_close(fine, whole[:, :, :-1, :-1])


@pytest.mark.parametrize(
    ("mode", "backbone", "channels"),
    [
        ("early", "efficientnet-b5", 2176),
        ("intermediate", "efficientnet-b5", 2176),
        ("late", "efficientnet-b5", 3456),
        ("early", "resnet18", 512),
        ("late", "resnet18", 2128),
    ],
)
def test_the_vector_of_a_scene_has_the_published_width(mode: Mode, backbone: Backbone, channels: int) -> None:
    with torch.device("meta"):
        encoder = make_encoder(mode, backbone).eval()
        pool = make_pool(encoder).eval()
        groups = (torch.empty(1, 4, 120, 120), torch.empty(1, 6, 60, 60), torch.empty(1, 2, 20, 20))
        assert pool(encoder(*groups)).shape == (1, channels)
    assert pool.channels == channels


def test_the_label_branch_has_the_published_widths() -> None:
    head = CorrelationHead(2176, dropout=0.4)
    assert (head.norm.num_features, head.linear1.out_features, head.linear2.out_features) == (2537, 64, 128)
    assert head.fc.in_features == 2304
    assert CorrelationHead(3456, dropout=0.2).fc.in_features == 3584


@pytest.mark.parametrize(("mode", "backbone"), SCENES)
def test_every_parameter_for_labels_can_learn(mode: Mode, backbone: Backbone) -> None:
    net = SceneFusion(mode, backbone).train()
    net.scene_logits(*groups_of(98, 98, n=2)).square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(("mode", "backbone"), DENSE)
def test_every_parameter_for_classes_can_learn(mode: Mode, backbone: Backbone) -> None:
    net = DenseFusion(mode, backbone).train()
    net(*groups_of(36, 36, n=2)).square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


def test_label_correlation_counts_what_meets() -> None:
    labels = torch.zeros(3, 19)
    labels[0, [0, 1]] = labels[1, [0, 2]] = labels[2, [0]] = 1
    table = label_correlation(labels)
    torch.testing.assert_close(table[0, :3], torch.tensor([3.0, 1.0, 1.0]) / 5)
    torch.testing.assert_close(table[1, :3], torch.tensor([0.5, 0.5, 0.0]))
    torch.testing.assert_close(table.sum(1), torch.tensor([1.0] * 3 + [0.0] * 16))


def test_focal_loss_without_focus_is_binary_cross_entropy() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(4, 19), torch.randint(0, 2, (4, 19))
    plain = F.binary_cross_entropy_with_logits(logits, labels.float())
    torch.testing.assert_close(focal_loss(logits, labels, gamma=0.0), plain)
    assert focal_loss(logits, labels) < plain


def test_the_offset_of_the_baseline_cancels() -> None:
    plain, shifted = SceneFusion("early", "resnet18"), SceneFusion("early", "resnet18", boa_offset=1000)
    groups = groups_of(12, 12)
    for a, b in zip(plain.groups(*groups), shifted.groups(*(g + 1000 for g in groups)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_presets_are_listed_with_cards_that_fit_them() -> None:
    names = {f"band-fusion-{m}-{b}" for m, b in product(MODES, get_args(Backbone))}
    faithful = {f"band-fusion-{m}-efficientnet-b5" for m in MODES} | {"band-fusion-intermediate-resnet18"}
    two_groups = {f"band-fusion-late-{b}-without-60m" for b in ("resnet18", "efficientnet-b5")}
    assert set(PRESETS) == (
        names | {f"{name}-dense" for name in names} | {f"{name}-faithful" for name in faithful} | two_groups
    )
    for name, preset in PRESETS.items():
        card = preset.card()
        assert (preset.name, card.name) == (name, name)
        assert [g.ratio for g in card.groups] == ([1, 2] if name in two_groups else [1, 2, 6])
        if name.endswith("dense") or "b5" in name:
            continue
        with torch.device("meta"):
            net, size = preset.build().eval(), card.window.size
            shapes = [(1, len(g.bands), size // g.ratio, size // g.ratio) for g in card.groups]
            out = net(*(torch.empty(s) for s in shapes))
        assert card.window.multiple == net.multiple
        assert out.shape == (1, 19, size * card.output_scale, size * card.output_scale)


@pytest.mark.parametrize(("mode", "backbone"), list(product(MODES, get_args(Backbone))))
def test_the_window_of_a_dense_card_fits_its_network(mode: Mode, backbone: Backbone) -> None:
    preset = PRESETS[f"band-fusion-{mode}-{backbone}-dense"]
    card = preset.card()
    with torch.device("meta"):
        net, size = preset.build().eval(), card.window.size
        out = net(*(torch.empty(1, len(g.bands), size // g.ratio, size // g.ratio) for g in card.groups))
    assert (card.window.multiple, out.shape) == (net.multiple, (1, 19, size, size))


FAITHFUL = [name for name in PRESETS if name.endswith("-faithful")]


@pytest.mark.parametrize("name", FAITHFUL)
def test_faithful_forms_have_the_parameters_of_the_public_code(name: str) -> None:
    preset = PRESETS[name]
    with torch.device("meta"):
        count = sum(p.numel() for p in preset.build().parameters())
    assert count == preset.published_parameters


def test_faithful_label_branch_is_linear_twice() -> None:
    torch.manual_seed(0)
    head, v = CorrelationHead(8, 0.0, faithful=True).eval(), torch.randn(3, 8)
    u = head.norm(torch.cat([v, head.correlation.expand(3, -1)], 1))
    u = F.relu(head.linear2(head.linear1(u)))
    torch.testing.assert_close(head(v), head.fc(torch.cat([v, u], 1)))
    assert not torch.equal(head(v), CorrelationHead(8, 0.0).eval()(v))


def test_faithful_gate_has_a_bias_and_the_joining_convolution_none() -> None:
    early = SceneFusion("early", "efficientnet-b0", faithful=True).state_dict()
    assert early["encoder.cbam.spatial.conv.bias"].shape == (1,)
    assert "encoder.join.bias" not in SceneFusion("intermediate", "resnet18", faithful=True).state_dict()


@pytest.mark.parametrize("mode", MODES)
def test_a_faithful_form_is_scripted_as_it_is(mode: Mode) -> None:
    torch.manual_seed(0)
    scene = SceneFusion(
        mode, "efficientnet-b5" if mode == "late" else "efficientnet-b0", faithful=True
    ).eval()
    with torch.inference_mode():
        groups = groups_of(120, 120, n=2)
        torch.testing.assert_close(torch.jit.script(scene)(*groups), scene(*groups), rtol=1e-5, atol=1e-5)


def test_what_is_frozen_neither_learns_nor_keeps_count() -> None:
    scene = SceneFusion("early", "efficientnet-b0", 5)
    scene.freeze()
    before = {k: v.clone() for k, v in scene.state_dict().items()}
    scene.train()
    optimiser = torch.optim.SGD([p for p in scene.parameters() if p.requires_grad], lr=0.1)
    scene.scene_logits(*groups_of(120, 120, n=2)).square().sum().backward()
    optimiser.step()
    changed = {k for k, v in scene.state_dict().items() if not torch.equal(v, before[k])}
    assert {"head.fc.weight", "head.linear1.weight", "head.norm.running_mean"} <= changed
    assert all(name.startswith("head.") for name in changed)
