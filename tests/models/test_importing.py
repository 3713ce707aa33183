"""Public checkpoints, made up here with the names that they have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from citycover.errors import ModelError
from citycover_models.blocks.domain_norm import SOURCE, TARGET
from citycover_models.blocks.resnet import ResNet
from citycover_models.blocks.vit import ViTBlock
from citycover_models.importing import import_weights
from citycover_models.nets.semantic_fpn import SemanticFPN
from citycover_models.nets.unet import UNet
from citycover_models.registry import find_preset
from citycover_models.weights import load_weights


def test_a_resnet_goes_into_every_encoder_and_a_fourth_band_begins_as_the_mean(tmp_path: Path) -> None:
    torch.manual_seed(0)
    public = ResNet("resnet18", 3, num_classes=1000)
    torch.save(public.state_dict(), tmp_path / "resnet18.pth")
    network = UNet("resnet18", 5)
    out = tmp_path / "w.safetensors"
    report = import_weights("torchvision-resnet", tmp_path / "resnet18.pth", network, out)
    assert report.fitted == ("encoder.conv1.weight: further bands begin as the mean of three",)
    assert {line.split(":")[0] for line in report.skipped} == {"fc.weight", "fc.bias"}
    assert all(not name.startswith("encoder.") for name in report.missing)
    assert not load_weights(network, out).skipped
    assert torch.equal(network.encoder.layer3[0].conv1.weight, public.layer3[0].conv1.weight)
    grey = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        one = network.encoder.conv1(grey.expand(-1, 4, -1, -1))
        torch.testing.assert_close(one, public.conv1(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)


def test_plain_weights_enter_the_statistics_of_both_sensors(tmp_path: Path) -> None:
    torch.manual_seed(1)
    public = ResNet("resnet18", 3)
    public.bn1.running_mean.fill_(3.0)
    torch.save({"state_dict": public.state_dict()}, tmp_path / "r.pth")
    network = SemanticFPN("resnet18", 4)
    import_weights("torchvision-resnet", tmp_path / "r.pth", network, tmp_path / "w.safetensors")
    load_weights(network, tmp_path / "w.safetensors")
    norms = network.encoder.bn1.norms
    assert (norms[SOURCE].running_mean == 3).all() and (norms[TARGET].running_mean == 3).all()


def test_lovecs_keeps_its_sensors_apart(tmp_path: Path) -> None:
    state = {
        "module.resnet.bn1.running_mean_source": torch.full((64,), 1.0),
        "module.resnet.bn1.running_mean_target": torch.full((64,), 2.0),
        "module.resnet.bn1.weight_source": torch.full((64,), 5.0),
    }
    torch.save(state, tmp_path / "l.pth")
    network = SemanticFPN("resnet18", 4)
    import_weights("lovecs", tmp_path / "l.pth", network, tmp_path / "w.safetensors")
    load_weights(network, tmp_path / "w.safetensors")
    norms = network.encoder.bn1.norms
    assert norms[SOURCE].running_mean[0] == 1 and norms[TARGET].running_mean[0] == 2
    assert norms[SOURCE].weight[0] == norms[TARGET].weight[0] == 5


def test_the_original_vit_becomes_blocks_that_compute_the_same(tmp_path: Path) -> None:
    network = find_preset("paraformer-tiny").build()
    dim = network.vit.norm.weight.numel()
    heads, depth = network.vit.blocks[0].attn.heads, len(network.vit.blocks)
    generator = np.random.default_rng(0)

    def random(*shape: int) -> np.ndarray:
        return generator.normal(size=shape).astype(np.float32) * 0.1

    hidden = network.vit.blocks[0].mlp.fc1.weight.shape[0]
    d, archive = dim // heads, {}
    for i in range(depth):
        base = f"Transformer/encoderblock_{i}"
        for norm in ("LayerNorm_0", "LayerNorm_2"):
            archive |= {f"{base}/{norm}/scale": random(dim) + 1, f"{base}/{norm}/bias": random(dim)}
        attention = f"{base}/MultiHeadDotProductAttention_1"
        for part in ("query", "key", "value"):
            archive[f"{attention}/{part}/kernel"] = random(dim, heads, d)
            archive[f"{attention}/{part}/bias"] = random(heads, d)
        archive |= {f"{attention}/out/kernel": random(heads, d, dim), f"{attention}/out/bias": random(dim)}
        archive[f"{base}/MlpBlock_3/Dense_0/kernel"] = random(dim, hidden)
        archive[f"{base}/MlpBlock_3/Dense_0/bias"] = random(hidden)
        archive[f"{base}/MlpBlock_3/Dense_1/kernel"] = random(hidden, dim)
        archive[f"{base}/MlpBlock_3/Dense_1/bias"] = random(dim)
    archive["Transformer/posembed_input/pos_embedding"] = random(1, 1 + 10 * 10, dim)
    np.savez(tmp_path / "vit.npz", **archive)
    report = import_weights("vit-npz", tmp_path / "vit.npz", network, tmp_path / "w.safetensors")
    assert any("10 x 10 tokens resized" in line for line in report.fitted) and not report.skipped
    load_weights(network, tmp_path / "w.safetensors")
    x = random(5, dim)
    block = network.vit.blocks[0]
    assert isinstance(block, ViTBlock)
    with torch.inference_mode():
        ours = block.attn(torch.from_numpy(x)[None])[0].numpy()
    np.testing.assert_allclose(ours, attention_by_hand(x, archive, heads), rtol=1e-3, atol=1e-4)


def attention_by_hand(x: np.ndarray, archive: dict[str, np.ndarray], heads: int) -> np.ndarray:
    """The first block's attention as the original release defines it."""
    base = "Transformer/encoderblock_0/MultiHeadDotProductAttention_1"
    q, k, v = (
        np.einsum("tc,chd->thd", x, archive[f"{base}/{part}/kernel"]) + archive[f"{base}/{part}/bias"]
        for part in ("query", "key", "value")
    )
    scores = np.einsum("thd,shd->hts", q, k) / np.sqrt(q.shape[2])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    mixed = np.einsum("hts,shd->thd", weights, v)
    return np.einsum("thd,hdc->tc", mixed, archive[f"{base}/out/kernel"]) + archive[f"{base}/out/bias"]


def test_segformer_and_daformer_load_by_their_own_names(tmp_path: Path) -> None:
    torch.manual_seed(2)
    network = find_preset("daformer-b0").build()
    state = network.state_dict()
    encoder = {k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")}
    torch.save(encoder, tmp_path / "mit.pth")
    report = import_weights("segformer", tmp_path / "mit.pth", network, tmp_path / "w.safetensors")
    assert len(report.used) == len(encoder) and not report.skipped
    torch.save({"state_dict": {f"model.{k}": v for k, v in state.items()}}, tmp_path / "daformer.pth")
    assert not import_weights(
        "daformer", tmp_path / "daformer.pth", network, tmp_path / "d.safetensors"
    ).missing


def test_what_fits_nowhere_is_refused(tmp_path: Path) -> None:
    torch.save({"strange": torch.ones(1)}, tmp_path / "s.pth")
    network = UNet("resnet18", 5)
    with pytest.raises(ModelError, match="strange"):
        import_weights("torchvision-resnet", tmp_path / "s.pth", network, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match="segformer"):
        import_weights("nothing", tmp_path / "s.pth", network, tmp_path / "w.safetensors")
    np.savez(tmp_path / "evil.npz", x=np.array([object()], dtype=object))
    with pytest.raises(ModelError, match="unpickling"):
        import_weights("vit-npz", tmp_path / "evil.npz", network, tmp_path / "w.safetensors")
