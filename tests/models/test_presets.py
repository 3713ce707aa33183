"""Every preset of every network: its count is the published one, its card holds, small ones script."""

from __future__ import annotations

import pytest
import torch

from citycover.modelfile import check_against_card
from citycover_models.registry import presets

PRESETS = presets()


@pytest.mark.parametrize("name", PRESETS)
def test_the_card_of_a_preset_is_consistent_and_says_where_the_method_comes_from(name: str) -> None:
    preset = PRESETS[name]
    card = preset.card()
    assert preset.name == name and card.groups
    assert preset.paper and preset.licence_note and card.sources


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
