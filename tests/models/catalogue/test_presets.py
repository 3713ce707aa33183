"""Every preset of every network: its count is the published one, its card holds, small ones script."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor

from citycover.errors import ModelError
from citycover.model.card import ModelCard
from citycover.model.checks import check_against_card
from citycover.model.mlm import card_to_item, parse_card
from citycover_models.catalogue.registry import presets

PRESETS = presets()
RGB = [name for name in PRESETS if name.endswith("-rgb") and name.removesuffix("-rgb") in PRESETS]
SMALL = (
    "spectral-rgbn",
    "l2hnet-w64",
    "paraformer-tiny",
    "vcnet-tiny",
    "daformer-b0",
    "daspm-b0",
    "hrda-b0",
    "band-fusion-early-efficientnet-b0",
    "band-fusion-intermediate-resnet18",
    "band-fusion-late-resnet18-dense",
    "c2fnet-tiny",
    "vhf-paranet-tiny",
    "semantic-fpn-resnet18",
    "unet-resnet18-rgb",
    "upernet-resnet18",
)
"""One preset of each network; the others are the same code in other sizes."""


@pytest.mark.parametrize("name", PRESETS)
def test_the_card_of_a_preset_is_consistent_and_says_where_the_method_comes_from(name: str) -> None:
    preset = PRESETS[name]
    card = preset.card()
    assert preset.name == name and card.groups
    assert preset.paper and preset.licence_note and card.sources
    assert parse_card(card_to_item(card), name) == card


@pytest.mark.parametrize("name", [n for n, p in PRESETS.items() if p.published_parameters])
def test_the_number_of_parameters_is_the_published_one(name: str) -> None:
    preset = PRESETS[name]
    with torch.device("meta"):
        network = preset.build()
    count = sum(p.numel() for p in network.parameters())
    assert count == preset.published_parameters


@pytest.mark.parametrize(
    "name",
    [
        "l2hnet-w64",
        "paraformer-tiny",
        "c2fnet-tiny",
        "c2fnet-rgb",
        "vhf-paranet-tiny",
        "semantic-fpn-resnet18",
        "unet-resnet18",
        "unet-resnet18-rgb",
        "upernet-resnet18",
    ],
)
def test_a_small_network_scripts_and_keeps_the_promise_of_its_card(name: str) -> None:
    torch.manual_seed(0)
    preset = PRESETS[name]
    network, card = preset.build().eval(), preset.card()
    network = preset.fold(network) if preset.fold else network
    scripted = torch.jit.script(network)
    side = card.window.size if card.window.fixed else 96
    window = torch.randint(0, 255, (1, len(card.groups[0].bands), side, side), dtype=torch.uint8)
    with torch.inference_mode():
        assert scripted(window).allclose(network(window), atol=1e-5)
    check_against_card(scripted, card)


def windows(card: ModelCard, n: int, y: int, x: int) -> list[Tensor]:
    """Windows of every band group, on the device in use."""
    return [torch.zeros(n, len(g.bands), math.ceil(y / g.ratio), math.ceil(x / g.ratio)) for g in card.groups]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in SMALL else pytest.mark.slow) for n in PRESETS]
)
def test_windows_that_fit_are_taken_and_others_refused_with_the_nearest(name: str) -> None:
    card = PRESETS[name].card()
    scale = card.output_scale
    # Without numbers; but what VCNet samples by is slower to describe than to compute.
    with torch.device("cpu" if name.startswith("vcnet") else "meta"), torch.inference_mode():
        network = PRESETS[name].build().eval()
        y, x = 3 * card.window.multiple, 4 * card.window.multiple
        assert network(*windows(card, 2, y, x)).shape == (2, len(card.channels), y * scale, x * scale)
        unit = getattr(network, "multiple", 1)  # UPerNet takes more than its card promises
        assert card.window.multiple % unit == 0
        for y, x in ((3 * unit + 1, 4 * unit), (unit // 3, 5 * unit - 1)) if unit > 1 else ():
            with pytest.raises(ModelError) as caught:
                network(*windows(card, 1, y, x))
            said = re.search(r"of (\d+) x (\d+) px.*nearest that fits is (\d+) x (\d+)", str(caught.value))
            assert said
            got, near = [int(n) for n in said.groups()[:2]], [int(n) for n in said.groups()[2:]]
            assert got == [y, x]
            network(*windows(card, 1, near[0], near[1]))
            for side, fits in zip(got, near, strict=True):
                assert (
                    abs(side - fits) <= unit / 2 or side < fits
                )  # the least that is taken may lie far above


@pytest.mark.parametrize("name", RGB)
def test_a_network_for_three_bands_is_its_twin_but_for_the_layer_that_sees_them(name: str) -> None:
    with torch.device("meta"):
        three, four = (PRESETS[n].build().state_dict() for n in (name, name.removesuffix("-rgb")))
    assert PRESETS[name].card().groups[0].names == ("red", "green", "blue")
    assert PRESETS[name.removesuffix("-rgb")].card().groups[0].names == ("red", "green", "blue", "nir")
    assert three.keys() == four.keys()
    differ = [n for n in three if three[n].shape != four[n].shape]
    assert {"normalise.mean", "normalise.std"} < set(differ) and len(differ) <= 4
    assert all(three[n].shape[1] == 3 and four[n].shape[1] == 4 for n in differ)
