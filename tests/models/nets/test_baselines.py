"""U-Net and UPerNet: shapes, refusals, and counts against their parts."""

from __future__ import annotations

import pytest
import torch

from citycover.errors import ModelError
from citycover_models.nets.unet import UNet
from citycover_models.nets.upernet import UPerNet


@pytest.mark.parametrize("shape", [(1, 4, 64, 64), (2, 4, 96, 160)])
@pytest.mark.parametrize("build", [UNet, UPerNet])
def test_logits_have_the_grid_of_the_window(build, shape: tuple[int, ...]) -> None:
    network = build("resnet18", 5).eval()
    with torch.inference_mode():
        scores = network(torch.randint(0, 255, shape, dtype=torch.uint8))
    assert scores.shape == (shape[0], 5, *shape[2:])


def test_upernet_takes_odd_windows_and_unet_names_the_nearest_that_it_takes() -> None:
    with torch.inference_mode():
        assert UPerNet("resnet18", 5).eval()(torch.zeros(1, 4, 61, 75)).shape == (1, 5, 61, 75)
        with pytest.raises(ModelError, match="64 x 64"):
            UNet("resnet18", 5)(torch.zeros(1, 4, 61, 75))


def test_the_encoders_have_their_known_counts() -> None:
    # Torchvision's ResNet-18 and -50 without classifier: 11,176,512 and 23,508,032 for three bands.
    for variant, count in (("resnet18", 11_176_512), ("resnet50", 23_508_032)):
        with torch.device("meta"):
            encoder = UNet(variant, 5).encoder
        fourth_band = 64 * 7 * 7
        assert sum(p.numel() for p in encoder.parameters()) == count + fourth_band
