"""ResNet encoders: counts, names, sizes, scripted form."""

from __future__ import annotations

import pytest
import torch

from citycover_models.blocks.resnet import RESNET_VARIANTS, ResNet, ResNetVariant


@pytest.mark.parametrize(("variant", "count"), [("resnet18", 11_689_512), ("resnet50", 25_557_032)])
def test_parameters_are_as_many_as_in_the_public_weights(variant: ResNetVariant, count: int) -> None:
    with torch.device("meta"):
        network = ResNet(variant, num_classes=1000)
    assert sum(p.numel() for p in network.parameters()) == count


def test_parameters_are_named_and_shaped_as_in_the_public_weights() -> None:
    with torch.device("meta"):
        shapes = {
            variant: {k: tuple(v.shape) for k, v in ResNet(variant, num_classes=1000).state_dict().items()}
            for variant in RESNET_VARIANTS
        }
    # torchvision: 122 and 320 tensors, num_batches_tracked included.
    assert {variant: len(names) for variant, names in shapes.items()} == {"resnet18": 122, "resnet50": 320}
    known = {
        "conv1.weight": (64, 3, 7, 7),
        "bn1.running_mean": (64,),
        "bn1.num_batches_tracked": (),
        "layer1.0.conv3.weight": (256, 64, 1, 1),
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer2.0.downsample.1.running_var": (512,),
        "layer3.5.conv2.weight": (256, 256, 3, 3),
        "layer4.2.bn3.bias": (2048,),
        "fc.weight": (1000, 2048),
    }
    assert {name: shapes["resnet50"][name] for name in known} == known
    assert shapes["resnet18"]["layer4.1.conv2.weight"] == (512, 512, 3, 3)
    assert "layer1.0.downsample.0.weight" not in shapes["resnet18"]


@pytest.mark.parametrize("variant", RESNET_VARIANTS)
def test_the_five_maps_halve_the_sides_step_by_step(variant: ResNetVariant) -> None:
    network = ResNet(variant, in_channels=4).eval()
    with torch.inference_mode():
        maps = network(torch.randn(1, 4, 32, 64))
    sides = [(16, 32), (8, 16), (4, 8), (2, 4), (1, 2)]
    assert [tuple(m.shape) for m in maps] == [(1, d, *s) for d, s in zip(network.dims, sides, strict=True)]


def test_the_strided_convolution_of_a_bottleneck_is_the_three_by_three() -> None:
    with torch.device("meta"):
        block = ResNet("resnet50").layer2[0]
    assert (block.conv1.stride, block.conv2.stride) == ((1, 1), (2, 2))


def test_scripted_equals_eager_features_and_scene_logits() -> None:
    torch.manual_seed(0)
    network = ResNet("resnet18", num_classes=7).eval()
    scripted = torch.jit.script(network)
    x = torch.randn(2, 3, 33, 40)
    with torch.inference_mode():
        for one, two in zip(scripted(x), network(x), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(scripted.classify(x), network.classify(x), rtol=1e-5, atol=1e-5)
    assert network.classify(x).shape == (2, 7)
