"""The registry, its facts, margins and weights: on small networks."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import citycover_models.nets
from citycover.errors import ModelError
from citycover.model.archive import read_model_file
from citycover_models.catalogue.counts import facts_of, read_facts, receptive_field
from citycover_models.catalogue.document import page_of
from citycover_models.catalogue.drawing import draw_figure, draw_text, parts_of
from citycover_models.catalogue.registry import NETWORKS, find_aerial, find_preset, presets
from citycover_models.export import margins
from citycover_models.export.margins import measure_margins
from citycover_models.export.network import export_preset
from citycover_models.export.proof import safe_precision
from citycover_models.imagery.aerial import POLAND_RGB
from citycover_models.nets.l2hnet import L2HNet
from citycover_models.weights.weights import load_weights, read_weights, write_tensors, write_weights


def test_every_network_is_in_the_registry() -> None:
    folder = Path(citycover_models.nets.__path__[0])
    written = {
        p.stem for p in folder.glob("*.py") if re.search(r"\((nn\.Module|Learnable)\):", p.read_text())
    }
    assert set(NETWORKS) == written == {preset.network for preset in presets().values()}
    assert all(name == preset.name for name, preset in presets().items())


def test_an_unknown_network_is_answered_with_the_nearest() -> None:
    with pytest.raises(ModelError, match="vcnet-tiny"):
        find_preset("vcnet-tinny")


def test_a_network_that_cannot_learn_names_those_that_can() -> None:
    assert find_aerial("unet-resnet18").build_for(3, statistics=POLAND_RGB).head.out_channels == 3
    with pytest.raises(
        ModelError, match=r"'band-fusion-.*' cannot .* l2hnet, paraformer, .*, upernet in all"
    ):
        find_aerial("band-fusion-early-resnet18")


def test_the_shipped_facts_are_those_of_the_networks() -> None:
    rows = {row.name: row for row in read_facts()}
    assert list(rows) == list(presets()), "python -m citycover_models.catalogue.document docs"
    for name in ("l2hnet-w64", "c2fnet-tiny", "unet-resnet18", "band-fusion-early-resnet18"):
        row = rows[name]
        with torch.device("meta"):
            network = find_preset(name).build()
        assert row.parameters == sum(p.numel() for p in network.parameters())
        assert row.trim == find_preset(name).card().trim
    counted = facts_of(find_preset("vhf-paranet-tiny"))
    assert replace(counted, mpx_per_s=0) == replace(rows["vhf-paranet-tiny"], mpx_per_s=0)


def test_the_page_of_the_networks_is_what_the_code_writes() -> None:
    page = Path(__file__).parents[3] / "docs" / "models.md"
    assert page.read_text(encoding="utf-8") == page_of(read_facts()), "make models-table"


def test_operations_of_a_known_convolution_are_counted_twice_for_multiply_and_add() -> None:
    # L2HNet is all convolutions at full resolution: 2 x weights x pixels, biases and norms not counted.
    with torch.device("meta"):
        network = L2HNet(16, width=64)
    weights = sum(m.weight.numel() for m in network.modules() if isinstance(m, nn.Conv2d))
    row = next(row for row in read_facts() if row.name == "l2hnet-w64")
    assert row.gflop_per_mpx == pytest.approx(2 * weights / 1e3, rel=1e-3)


def test_the_receptive_field_of_l2hnet_is_that_of_its_kernels() -> None:
    # 3x3, then five blocks of 5x5: 1 + 2 + 5 * 4.
    narrow = replace(find_preset("l2hnet-w64"), build=lambda: L2HNet(5, width=8), card=small_card)
    assert receptive_field(narrow) == 23


def test_a_network_is_drawn_from_its_own_parts(tmp_path: Path) -> None:
    parts = parts_of(find_preset("c2fnet-tiny"))
    text = draw_text(parts)
    assert "ERRB" in text and "16 x 256 x 256" in text
    draw_figure(parts, "c2fnet-tiny", tmp_path / "drawn.svg")
    assert (tmp_path / "drawn.svg").read_text().count("<path") > 5


def test_a_network_without_parameters_is_drawn_too(tmp_path: Path) -> None:
    draw_figure(parts_of(find_preset("spectral-rgb")), "spectral-rgb", tmp_path / "drawn.svg")
    assert "<!-- surface.smooth -->" in (tmp_path / "drawn.svg").read_text()


class Padded(nn.Module):
    """A padded mean over 2 r + 1 pixels: what lies closer than r to an edge sees zeros."""

    def __init__(self, reach: int) -> None:
        super().__init__()
        self.reach = reach

    def forward(self, x: Tensor) -> Tensor:
        k = 2 * self.reach + 1
        y = nn.functional.avg_pool2d(x.float(), k, stride=1, padding=self.reach)
        return torch.cat([y, 255 - y], dim=1)[:, :5]


def small_card(**changes: object):
    card = find_preset("l2hnet-w64").card()
    legend = card.legend.model_copy(update={"classes": card.legend.classes[:5]})
    window = card.window.model_copy(update={"size": 128})
    return type(card)(**(dict(card) | {"legend": legend, "window": window, "channels": ()} | changes))


def test_the_measured_trim_is_the_reach_of_padding() -> None:
    found = measure_margins(Padded(9), small_card())
    assert found is not None and found.enough and 4 <= found.trim <= 9 and 0 < found.feather <= found.trim
    assert found.left <= margins.ENOUGH
    nothing = measure_margins(Padded(0), small_card())
    assert (nothing.trim, nothing.feather) == (0, 0), "a pointwise network has no seams"


def test_a_network_that_gives_one_class_tells_nothing_about_margins() -> None:
    def constant(x: Tensor) -> Tensor:
        return torch.cat([x.float() * 0 + 1, x[:, :1].float() * 0], dim=1)

    assert measure_margins(constant, small_card()) is None


def test_measured_margins_keep_the_stride_and_can_be_written_into_the_card() -> None:
    card = small_card(stride=16, trim=16, feather=16)
    found = measure_margins(Padded(9), card)
    assert found.trim == 16 and found.feather == 16
    assert found.on(card).trim == 16


@pytest.mark.parametrize("settled", [True, False])
def test_whatever_is_measured_of_a_network_fits_its_card(settled: bool) -> None:
    """Of every card that windows can be compared by; its network is a stand-in of two classes."""
    cards = {
        (card.window.size, card.stride, card.output_scale, tuple(g.ratio for g in card.groups)): card
        for card in (preset.card() for preset in presets().values())
        if margins.measurable(card)
    }
    assert {card.stride for card in cards.values()} > {1, 32, 96, 192}
    for card in cards.values():

        def network(*windows: Tensor, scale: int = int(card.output_scale)) -> Tensor:
            finest = nn.functional.interpolate(windows[0][:, :1].float(), scale_factor=scale)
            one = (finest * 1000 / 3).round() % 2 if settled else torch.rand_like(finest)
            return torch.cat([one, 1 - one], dim=1)

        found = measure_margins(network, card, images=1)
        assert found is not None and found.enough == settled
        fitting = found.on(card)
        assert (fitting.trim, fitting.feather) == (found.trim, found.feather)


def test_a_network_that_sees_its_whole_window_gets_a_wide_feather() -> None:
    def whole(x: Tensor) -> Tensor:
        mean = x.float().mean(dim=(2, 3), keepdim=True)
        return torch.cat([x.float() - mean, mean - x.float()], dim=1)[:, :5]

    found = measure_margins(whole, small_card())
    assert not found.enough and found.feather == 128 // 8


def test_a_network_that_bf16_changes_stays_in_fp32() -> None:
    class Brittle(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            weights = torch.arange(1.0, 21.0).view(5, 4, 1, 1)
            y = nn.functional.conv2d(x.float() * 1000 + 1, weights)  # loses its last digits in bf16
            return (y.float() % 7 - 3) * 40

    assert safe_precision(Brittle(), small_card()) == "fp32"
    assert safe_precision(L2HNet(16).eval(), find_preset("l2hnet-w64").card()) == "any"


def test_weights_go_by_name_and_shape_and_everything_is_reported(tmp_path: Path) -> None:
    torch.manual_seed(0)
    one, two = L2HNet(5, width=16, blocks=1), L2HNet(7, width=16, blocks=1)
    path = tmp_path / "one.safetensors"
    write_weights(one, path)
    report = load_weights(two, path)
    assert set(report.skipped) == {"head.weight", "head.bias"} == set(report.missing)
    assert torch.equal(two.trunk.start.weight, one.trunk.start.weight)
    save_file({"other": torch.ones(1)}, path)
    with pytest.raises(ModelError, match="fit nothing"):
        load_weights(two, path)


def test_weights_whose_shapes_contradict_the_network_are_refused_with_both_shapes(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_weights(L2HNet(5, width=16, blocks=1), path)
    before = (network := L2HNet(5, width=8, blocks=1)).trunk.start.weight.clone()
    with pytest.raises(ModelError, match=r"head.weight is \(5, 16, 1, 1\), needed \(5, 8, 1, 1\).* more"):
        load_weights(network, path)
    assert torch.equal(network.trunk.start.weight, before)  # nothing was loaded
    with pytest.raises(ModelError, match=r"in 3 of .*trunk.start.weight is .*, needed \(16, 3, 3, 3\)"):
        load_weights(L2HNet(5, width=16, blocks=1, statistics=POLAND_RGB), path)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"state_dict": {"w": torch.ones(1)}, "evil": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ModelError, match="no file of tensors alone"):
        read_weights(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()
    torch.save({"state_dict": {"w": torch.ones(1)}, "epoch": 3}, tmp_path / "good.pth")
    assert list(read_weights(tmp_path / "good.pth")) == ["w"]


@pytest.mark.parametrize("ending", [".pt", ".pt2"])
def test_a_preset_is_exported_with_weights_margins_and_both_formats(tmp_path: Path, ending: str) -> None:
    preset = find_preset("c2fnet-tiny")
    torch.manual_seed(3)
    write_weights(preset.build(), tmp_path / "w.safetensors")
    done = export_preset("c2fnet-tiny", tmp_path / f"model{ending}", weights=tmp_path / "w.safetensors")
    assert done.loaded is not None and not done.loaded.missing and not done.report.card.untrained
    assert done.margins is not None and done.report.card.trim == done.margins.trim
    assert done.report.card.disagreement == pytest.approx(done.margins.left, abs=1e-6)
    assert done.report.format == ("pt2" if ending == ".pt2" else "torchscript")
    assert done.report.difference <= 1e-5 and len(done.report.sides) == 3


def test_weights_of_another_legend_leave_a_random_head_which_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a training onto four classes, exported under the preset's eight."""
    state = find_preset("c2fnet-tiny").build().state_dict()
    heads = [name for name in state if name.startswith(("classifier", "coarse_head"))]
    write_tensors({k: v[:4] if k in heads else v for k, v in state.items()}, tmp_path / "w.safetensors")
    done = export_preset(
        "c2fnet-tiny", tmp_path / "model.pt", weights=tmp_path / "w.safetensors", measure=False
    )
    assert done.loaded is not None and set(done.loaded.missing) == set(heads)
    card = read_model_file(tmp_path / "model.pt").card
    assert card.untrained and heads[0] in card.training
    assert "random weights in 3 of" in caplog.text and "its map means nothing" in caplog.text
