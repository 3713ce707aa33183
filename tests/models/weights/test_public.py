"""Public checkpoints, made up here with the names that they have."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file
from torch import Tensor, nn

from citycover.errors import ModelError
from citycover.files.configs import config_path
from citycover_models.blocks.band_encoders import Backbone, Mode
from citycover_models.blocks.domain_norm import SOURCE, TARGET
from citycover_models.blocks.resnet import ResNet
from citycover_models.blocks.vit import ViTBlock
from citycover_models.catalogue.coarse import PARAFORMER_TINY, VCNET_TINY
from citycover_models.catalogue.registry import find_preset
from citycover_models.nets.band_fusion import SceneFusion
from citycover_models.nets.paraformer import Paraformer
from citycover_models.nets.semantic_fpn import SemanticFPN
from citycover_models.nets.unet import UNet
from citycover_models.nets.vcnet import VCNet
from citycover_models.weights.matching import match_by_order
from citycover_models.weights.public import import_weights, read_renames
from citycover_models.weights.weights import load_weights


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
    wider = find_preset("hrda-b0").build()
    report = import_weights("daformer", tmp_path / "daformer.pth", wider, tmp_path / "h.safetensors")
    assert len(report.used) == len(state) and not report.skipped
    assert {name.split(".")[0] for name in report.missing} == {"scale_attention"}


def test_what_fits_nowhere_is_refused(tmp_path: Path) -> None:
    torch.save({"strange": torch.ones(1)}, tmp_path / "s.pth")
    network = UNet("resnet18", 5)
    with pytest.raises(ModelError, match="strange"):
        import_weights("torchvision-resnet", tmp_path / "s.pth", network, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match="segformer"):
        import_weights("nothing", tmp_path / "s.pth", network, tmp_path / "w.safetensors")
    np.savez(tmp_path / "part.npz", **{"Transformer/encoderblock_0/x": np.ones(1)})
    with pytest.raises(ModelError, match=r"LayerNorm_0.*whole"):
        import_weights("vit-npz", tmp_path / "part.npz", network, tmp_path / "w.safetensors")
    for name, content in (("cut.npz", (tmp_path / "part.npz").read_bytes()[:50]), ("empty.npz", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match="cannot be read"):
            import_weights("vit-npz", tmp_path / name, network, tmp_path / "w.safetensors")
    np.savez(tmp_path / "evil.npz", x=np.array([object()], dtype=object))
    with pytest.raises(ModelError, match="unpickling"):
        import_weights("vit-npz", tmp_path / "evil.npz", network, tmp_path / "w.safetensors")


def checkpoint(*, zipped: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save({"a": torch.ones(300)}, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


JUNK = {
    "five.pth": (
        b"hello",
        "neither a checkpoint of PyTorch nor a .safetensors file: they begin with b'hello'",
    ),
    "page.pth": (b"<!DOCTYPE html>", "nor a .safetensors file.*not a page or a pointer"),
    "nothing.pth": (b"", "they are empty"),
    "short.pth": (checkpoint()[:-100], "cut short"),
    "old.pth": (checkpoint(zipped=False)[:40], r"cannot be read \(EOFError\).*cut short"),
    "other.pth": (save({"a": torch.ones(1)}), "are a .safetensors file, .*name it other.safetensors"),
    "five.safetensors": (b"hello", "nor a .safetensors file: they begin with b'hello'"),
    "other.safetensors": (checkpoint(), "are a checkpoint of PyTorch, .*name it other.pth"),
    "five.npz": (b"hello", "no .npz archive: they begin with b'hello'"),
}


@pytest.mark.parametrize("name", JUNK)
def test_a_file_that_is_no_checkpoint_is_told_what_it_is(tmp_path: Path, name: str) -> None:
    content, said = JUNK[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=said):
        import_weights("lovecs", tmp_path / name, nn.Linear(1, 1), tmp_path / "w.safetensors")


CLASHES = {
    "lovecs": ("resnet.bn1.running_mean_source", "encoder.bn1.running_mean_source"),
    "vcnet": ("attn.query.weight", "attn.qkv.weight", "attn.key.weight", "attn.value.weight"),
    "band-fusion": ("b._bn0.weight", "encoder.levels.net._bn0.weight", "b._conv_stem.weight"),
    "torchvision-resnet": ("conv1.weight", "encoder.conv1.weight"),
}


@pytest.mark.parametrize("source", CLASHES)
def test_two_tensors_that_come_to_one_name_are_refused_with_both(tmp_path: Path, source: str) -> None:
    one, other, *more = CLASHES[source]
    torch.save({name: torch.ones(64, 3, 7, 7) for name in (one, other, *more)}, tmp_path / "clash.pth")
    with pytest.raises(ModelError, match=f"two tensors .*'{one}' and '{other}'"):
        import_weights(source, tmp_path / "clash.pth", UNet("resnet18", 5), tmp_path / "w.safetensors")


# -- checkpoints whose modules are called otherwise --


def by_their_names(state: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """A state dict as the public code names it: the table of renames, read from right to left."""
    table = read_renames(config_path("checkpoints", f"{source}.toml"))
    for pattern, replacement in reversed(table.items()):
        groups = re.findall(r"\([^)]*\)", pattern)
        plain = re.sub(r"\\(?=[.])", "", pattern.strip("^$"))
        for number, group in enumerate(groups, 1):
            plain = plain.replace(group, f"\\{number}", 1)
        back = re.escape(replacement)
        for number, group in enumerate(groups, 1):
            back = back.replace(rf"\\{number}", group)
        end = "$" if pattern.endswith("$") else ""
        state = {re.sub(f"^{back}{end}", plain, name): tensor for name, tensor in state.items()}
    return state


def apart(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """`qkv` as three layers, as one of the public codes has it."""
    new: dict[str, Tensor] = {}
    for name, tensor in state.items():
        parts = ("query", "key", "value")
        split = zip(parts, tensor.chunk(3), strict=True) if ".qkv." in name else ((None, tensor),)
        new |= {name.replace("qkv", part) if part else name: t for part, t in split}
    return new


def two_sensors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Statistics of two sensors, and their common scale and shift, as LoveCS names them."""
    new: dict[str, Tensor] = {}
    for name, tensor in state.items():
        found = re.fullmatch(r"(.*)\.norms\.(\d)\.(.*)", name)
        if found is None:
            new[name] = tensor
        elif "tracked" not in name and (found[2] == "0" or "running" in name):
            new[f"{found[1]}.{found[3]}_{('source', 'target')[int(found[2])]}"] = tensor
    return new


@pytest.mark.parametrize("source", ["lovecs", "paraformer", "vcnet"])
def test_published_names_place_every_tensor(tmp_path: Path, source: str) -> None:
    def build() -> nn.Module:
        if source == "lovecs":
            return SemanticFPN("resnet18", 4)
        if source == "paraformer":
            return Paraformer(4, widths=PARAFORMER_TINY)
        return VCNet(4, widths=VCNET_TINY, faithful=True)

    public, ours = shaken(build(), 1), shaken(build(), 2)
    for module in public.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
    state = {k: v for k, v in public.state_dict().items() if not k.startswith("normalise.")}
    said = {"lovecs": two_sensors, "paraformer": apart, "vcnet": dict}[source](state)
    theirs = by_their_names(said, source)
    assert len(theirs) == len(said) and sum(name in said for name in theirs) < len(said) / 2
    shuffled = dict(sorted(theirs.items(), key=lambda item: item[0][::-1]))  # order is of no use
    torch.save(shuffled, tmp_path / "public.pth")
    report = import_weights(source, tmp_path / "public.pth", ours, tmp_path / "w.safetensors")
    assert not report.skipped and not report.fitted
    load_weights(ours, tmp_path / "w.safetensors")
    for domain in (SOURCE, TARGET) if source == "lovecs" else (None,):
        bands = 3 if source == "lovecs" else 4
        x = torch.randint(0, 255, (1, bands, 64, 64), dtype=torch.uint8)
        for network in (ours, public):
            if domain is not None:
                network.look_as(domain)
        with torch.inference_mode():
            assert torch.equal(ours(x), public(x))


# -- checkpoints whose names are not known --


def foreign(network: nn.Module) -> dict[str, Tensor]:
    """Its state as another author would have named it: the same modules in the same order."""
    words: dict[str, str] = {}

    def renamed(part: str) -> str:
        torchs_own = part.isdigit() or part in {"weight", "bias", "num_batches_tracked"} or "running" in part
        return part if torchs_own else words.setdefault(part, f"part_{len(words)}")

    state = {k: v for k, v in network.state_dict().items() if not k.startswith("normalise.")}
    return {f"module.{'.'.join(map(renamed, name.split('.')))}": tensor for name, tensor in state.items()}


def shaken(network: nn.Module, seed: int) -> nn.Module:
    """No two tensors of a shape are equal."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            p.normal_(std=0.1)
    return network.eval()


@pytest.mark.parametrize("source", ["paraformer", "vcnet"])
def test_a_checkpoint_of_unknown_names_goes_by_shape_and_order(tmp_path: Path, source: str) -> None:
    def build() -> nn.Module:
        if source == "paraformer":
            return Paraformer(4, widths=PARAFORMER_TINY)
        return VCNet(4, widths=VCNET_TINY, faithful=True)

    public, ours = shaken(build(), 1), shaken(build(), 2)
    torch.save({"state_dict": foreign(public)}, tmp_path / "public.pth")
    out = tmp_path / "w.safetensors"
    report = import_weights(source, tmp_path / "public.pth", ours, out)
    assert (
        set(report.missing) == {"normalise.mean", "normalise.std"} and not report.skipped and not report.used
    )
    assert all("by shape and order" in line for line in report.fitted)
    load_weights(ours, out)
    x = torch.randint(0, 255, (1, 4, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(ours(x), public(x))


@pytest.mark.parametrize("seed", range(3))
def test_in_another_order_a_tensor_is_never_taken_for_another(seed: int) -> None:
    """Named parts change places, on three levels: all is matched rightly, or it is ambiguous."""
    generator = np.random.default_rng(seed)
    right = 0
    for network in (Paraformer(4, widths=PARAFORMER_TINY), VCNet(4, widths=VCNET_TINY, faithful=True)):
        shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
        ranks: dict[str, float] = {}

        def place(name: str, ranks: dict[str, float] = ranks) -> list[float]:
            parts = name.split(".")[:-1][:3]
            modules = [".".join(parts[: depth + 1]) for depth in range(len(parts))]
            return [0.0 if m[-1].isdigit() else ranks.setdefault(m, generator.random()) for m in modules]

        moved = {f"x.{name}": shapes[name] for name in sorted(shapes, key=place)}
        try:
            found = match_by_order(moved, shapes)
        except ModelError as error:
            assert "ambiguous" in str(error)  # noqa: PT017
            continue
        assert found == {name: f"x.{name}" for name in shapes}
        right += 1
    assert right  # Paraformer's parts are all unlike one another


def test_a_head_for_other_classes_and_a_part_that_we_do_not_have_are_reported(tmp_path: Path) -> None:
    state = foreign(Paraformer(7, widths=PARAFORMER_TINY)) | {"module.extra.weight": torch.ones(3, 3)}
    torch.save(state, tmp_path / "p.pth")
    report = import_weights(
        "paraformer", tmp_path / "p.pth", Paraformer(4, widths=PARAFORMER_TINY), tmp_path / "w.safetensors"
    )
    heads = {f"head_{branch}.{leaf}" for branch in ("cnn", "vit") for leaf in ("weight", "bias")}
    assert set(report.missing) == heads | {"normalise.mean", "normalise.std"}
    assert len(report.skipped) == len(heads) + 1 and "extra.weight" in report.skipped[-1]


def test_alike_layers_in_another_order_are_ambiguous_and_a_file_of_renames_decides(tmp_path: Path) -> None:
    class Theirs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.middle = nn.Linear(4, 4), nn.Linear(4, 8)
            self.second = nn.Linear(4, 4)

    class Ours(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
            self.three = nn.Linear(4, 8)

    theirs, ours = Theirs(), Ours()
    torch.save(theirs.state_dict(), tmp_path / "t.pth")
    out = tmp_path / "w.safetensors"
    with pytest.raises(
        ModelError, match=r"ambiguous:\n  bias \(4,\): 2 in the file \(first.bias, second.bias\)"
    ):
        import_weights("vcnet", tmp_path / "t.pth", ours, out)
    assert not out.exists()
    (tmp_path / "map.toml").write_text("[rename]\n'^first' = 'two'\n'^(se)cond' = 'one'\n")
    renames = read_renames(tmp_path / "map.toml")
    report = import_weights("vcnet", tmp_path / "t.pth", ours, out, renames=renames)
    assert len(report.used) == 4 and len(report.fitted) == 2 and not report.missing
    load_weights(ours, out)
    assert torch.equal(ours.two.weight, theirs.first.weight)
    assert torch.equal(ours.three.weight, theirs.middle.weight)


def test_modules_that_are_alike_need_the_same_number_on_both_sides() -> None:
    def twice(prefix: str, count: int) -> dict[str, tuple[int, ...]]:
        return {f"{prefix}.{i}.{j}.weight": (2, 2 + j) for i in range(count) for j in range(2)}

    assert match_by_order(twice("a", 3), {"x.weight": (9,), **twice("b", 3)}) == {
        f"b.{i}.{j}.weight": f"a.{i}.{j}.weight" for i in range(3) for j in range(2)
    }
    with pytest.raises(ModelError, match=r"weight \(2, 2\): 3 in the file .* 2 in the network"):
        match_by_order(twice("a", 3), twice("b", 2))


def test_query_key_and_value_apart_become_one_layer(tmp_path: Path) -> None:
    ours = ViTBlock(6, 2)
    state = {f"block.{k}": v for k, v in ours.state_dict().items() if "qkv" not in k}
    parts = {f"block.attn.{part}.weight": torch.randn(6, 6) for part in ("value", "query", "key")}
    torch.save(state | parts, tmp_path / "p.pth")
    import_weights(
        "paraformer", tmp_path / "p.pth", ours, tmp_path / "w.safetensors", renames={"^block.": ""}
    )
    load_weights(ours, tmp_path / "w.safetensors")
    stacked = torch.cat([parts[f"block.attn.{part}.weight"] for part in ("query", "key", "value")])
    assert torch.equal(ours.attn.qkv.weight, stacked)


def test_a_file_without_order_and_renames_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    ours, out = nn.Linear(2, 2), tmp_path / "w.safetensors"
    save_file({"strange.weight": torch.ones(2, 2)}, tmp_path / "s.safetensors")
    with pytest.raises(ModelError, match="do not keep their order"):
        import_weights("vcnet", tmp_path / "s.safetensors", ours, out)
    torch.save({"a.weight": torch.ones(2, 2), "b.weight": torch.ones(2, 2)}, tmp_path / "s.pth")
    for renames, said in (
        ({"^[ab]": "c"}, "two tensors"),
        ({"(": ""}, "not valid"),
        ({"a": r"\1"}, "not valid"),
    ):
        with pytest.raises(ModelError, match=said):
            import_weights("vcnet", tmp_path / "s.pth", ours, out, renames=renames)
    for text, said in (("[rename", "not TOML"), ("rename = 1", "table"), ("[rename]\na = 1", "table")):
        (tmp_path / "map.toml").write_text(text)
        with pytest.raises(ModelError, match=said):
            read_renames(tmp_path / "map.toml")
    with pytest.raises(ModelError, match="cannot be read"):
        read_renames(tmp_path / "none.toml")


@pytest.mark.parametrize("mode", ["early", "late"])
def test_a_checkpoint_of_the_band_fusions_is_placed_whole(tmp_path: Path, mode: Mode) -> None:
    """The backbones by their public names behind any prefix, the rest by shape and order."""
    torch.manual_seed(0)
    backbone: Backbone = "efficientnet-b5" if mode == "late" else "efficientnet-b0"
    theirs = SceneFusion(mode, backbone, faithful=True).eval()
    names = {"encoder.levels.net.": "b_model.", "encoder.fine.net.": "b10_model.",
             "encoder.coarse.net.": "b20_model.", "encoder.": "fuse.", "pool.": "fuse.",
             "head.": "out."}  # fmt: skip
    state = {}
    for name, tensor in theirs.state_dict().items():
        if not name.startswith("groups.") and name != "head.correlation":
            old = next(prefix for prefix in names if name.startswith(prefix))
            state[names[old] + name.removeprefix(old)] = tensor
    state["b10_model._fc.weight"] = torch.zeros(1000, 1280)  # never used in theirs either
    torch.save(state, tmp_path / "ben.pth")
    network = SceneFusion(mode, backbone, faithful=True).eval()
    report = import_weights("band-fusion", tmp_path / "ben.pth", network, tmp_path / "w.safetensors")
    assert [line.split(":")[0] for line in report.skipped] == ["b10_model._fc.weight"]
    assert all(name.startswith("groups.") or name == "head.correlation" for name in report.missing)
    load_weights(network, tmp_path / "w.safetensors")
    sides = ((4, 120), (6, 60), (2, 20))
    groups = [torch.rand(1, bands, side, side) * 3000 for bands, side in sides]
    with torch.inference_mode():
        assert torch.equal(network.scene_logits(*groups), theirs.scene_logits(*groups))
