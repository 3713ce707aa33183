"""Public weights into the names and shapes of our networks; every tensor is accounted for.

Encoders here are named as their public weights are, so importing is three steps: rename what a source calls
otherwise, find where in the network the encoder sits, and fit what may differ in shape: another number of
bands, another grid of positions. What fits nowhere is skipped, with the reason.

Checkpoints of LoveCS, Paraformer and VCNet name the same modules otherwise; the tables are data, in
`configs/checkpoints`. What no name places goes by shape and order (`matching.py`) where a source allows it,
or not at all, and is reported name by name. A file of renames (`--map`) comes before all of that.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from citycover.errors import ModelError
from citycover.files.configs import config_path
from citycover.files.toml import read_toml
from citycover_models.blocks.vit import resize_positions
from citycover_models.weights.matching import match_by_order
from citycover_models.weights.weights import how_it_begins, read_weights, write_tensors

_DOMAIN = re.compile(r"\.norms\.\d+(?=\.)")
"""Where a network keeps statistics for each sensor, plain weights go to all of them."""


@dataclass(frozen=True, slots=True)
class Source:
    """One kind of public checkpoint."""

    what: str
    signature: str
    """A name in it; where the network has a name that ends like this, the rest of the checkpoint goes too."""
    rename: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict
    """From its names to those of the network's part."""
    by_order: bool = False
    """What no name places goes by shape and order."""
    table: str | None = None
    """Stem of the renames in `configs/checkpoints` that its names go through first."""


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What became of each tensor."""

    used: tuple[str, ...]
    """Names in the network that got a tensor as it was."""
    fitted: tuple[str, ...]
    """Names whose tensor was fitted, and how."""
    skipped: tuple[str, ...]
    """Names in the file that went nowhere, and why."""
    missing: tuple[str, ...]
    """Names in the network that got nothing."""


def import_weights(
    source: str,
    file: str | Path,
    network: nn.Module,
    out: str | Path,
    *,
    renames: Mapping[str, str] | None = None,
) -> ImportReport:
    """Write the weights of a public checkpoint as .safetensors of a network.

    Args:
        source: a key of `SOURCES`.
        file: .pth, .safetensors, or .npz for `vit-npz`; nothing is unpickled but tensors.
        network: that will load them.
        out: file to write; names in it are the network's.
        renames: regular expression -> replacement, see `read_renames`; applied to the file's names first.

    Raises:
        ModelError: the source is unknown, the file cannot be read, nothing in it fits, or shape and order
            leave open what is what.
    """
    if source not in SOURCES:
        raise ModelError(f"there is no source {source!r}; there are: {', '.join(SOURCES)}")
    kind = SOURCES[source]
    known = read_renames(config_path("checkpoints", f"{kind.table}.toml")) if kind.table else {}
    try:
        given = kind.rename(_renamed(_renamed(_without_wrapper(_read(file)), renames or {}), known))
    except KeyError as error:
        raise ModelError(f"weights {file} lack {error}; needed is {kind.what}, whole") from None
    wanted = network.state_dict()
    state, fitted, skipped = _place(given, wanted, kind.signature)
    if kind.by_order:
        ours = {name: tuple(tensor.shape) for name, tensor in wanted.items() if name not in state}
        theirs = {name: tuple(given[name].shape) for name in skipped}
        for target, name in _match(theirs, ours, Path(file)).items():
            state[target] = given[name]
            fitted[target] = f"{name} of the file, by shape and order"
            del skipped[name]
    if not state:
        raise ModelError(
            f"nothing in {file} fits the network as {source} ({kind.what}): its names begin with "
            f"{next(iter(given), 'nothing')!r}; give another --from, or another network with --to"
        )
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    write_tensors(state, out)
    plain = tuple(name for name in state if name not in fitted)
    return ImportReport(
        used=plain,
        fitted=tuple(f"{name}: {how}" for name, how in fitted.items()),
        skipped=tuple(f"{name}: {why}" for name, why in skipped.items()),
        missing=tuple(name for name in wanted if name not in state),
    )


def read_renames(path: str | Path) -> dict[str, str]:
    r"""Read renames: a TOML table `[rename]` of regular expressions and what replaces their matches.

    `'^net\.rp(\d+)\.' = 'encoder.trunk.blocks.\1.'` and so on; each is applied to every name, in the order
    of the file.

    Raises:
        ModelError: the file cannot be read, or holds no such table.
    """
    table = read_toml(Path(path), "table of renames", ModelError).get("rename")
    if not isinstance(table, dict) or not all(isinstance(new, str) for new in table.values()):
        raise ModelError(f"renames {path} need a table [rename] of lines 'pattern' = 'replacement'")
    return table


def _renamed(given: dict[str, Tensor], renames: Mapping[str, str]) -> dict[str, Tensor]:
    """With every rename applied to every name, in order."""

    def renamed(name: str) -> str:
        for pattern, replacement in renames.items():
            try:
                name = re.sub(pattern, replacement, name)
            except (re.error, IndexError) as error:
                raise ModelError(f"rename {pattern!r} = {replacement!r} is not valid: {error}") from None
        return name

    return _by_new_names((renamed(name), name, tensor) for name, tensor in given.items())


def _by_new_names(renamed: Iterable[tuple[str, str, Tensor]]) -> dict[str, Tensor]:
    """Tensors by their new names, out of (new name, name before, tensor).

    Raises:
        ModelError: two come to the same name: which one was meant, nothing says.
    """
    new: dict[str, Tensor] = {}
    before: dict[str, str] = {}
    for to, name, tensor in renamed:
        _check_free(to, name, before)
        new[to], before[to] = tensor, name
    return new


def _check_free(to: str, name: str, before: Mapping[str, str]) -> None:
    if to in before:
        raise ModelError(
            f"two tensors of the file come to {to!r}: {before[to]!r} and {name!r}; leave one of them out of "
            "the file, or tell them apart by renames (--map)"
        )


def _match(
    theirs: Mapping[str, tuple[int, ...]], ours: Mapping[str, tuple[int, ...]], file: Path
) -> dict[str, str]:
    """Names of the network -> names of the file that are left, by shape and order."""
    if file.suffix == ".safetensors" and theirs and ours:
        raise ModelError(
            f"{file} names {len(theirs)} tensors otherwise than the network ({next(iter(theirs))!r}, ...), "
            "and .safetensors files do not keep their order; give the .pth file, or --map"
        )
    return match_by_order(theirs, ours)


def _read(file: str | Path) -> dict[str, Tensor]:
    """Tensors by name."""
    if Path(file).suffix != ".npz":
        return read_weights(file)
    try:
        if (head := how_it_begins(Path(file))) and not head.startswith(b"PK"):
            raise ModelError(f"weights {file} are no .npz archive: they begin with {head!r}; fetch them anew")
        with Path(file).open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
            return {name: torch.from_numpy(np.array(archive[name])) for name in archive.files}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ModelError(f"weights {file} cannot be read without unpickling: {error!r}") from None


def _without_wrapper(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefixes that training wrappers put before every name."""
    for prefix in ("module.", "model."):
        if given and all(name.startswith(prefix) for name in given):
            given = {name.removeprefix(prefix): tensor for name, tensor in given.items()}
    return given


def _place(
    given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], signature: str
) -> tuple[dict[str, Tensor], dict[str, str], dict[str, str]]:
    """Tensors by the network's names; what was fitted and how; what was skipped and why."""
    places: dict[str, list[str]] = {}
    for name in wanted:
        places.setdefault(_DOMAIN.sub("", name), []).append(name)
    parts = [plain[: -len(signature)] for plain in places if plain.endswith(signature)] if signature else [""]
    state: dict[str, Tensor] = {}
    fitted: dict[str, str] = {}
    skipped: dict[str, str] = {}
    origin: dict[str, str] = {}
    for name, tensor in given.items():
        exact = [name] if name in wanted else []
        targets = exact or [t for part in parts for t in places.get(part + name, [])]
        if not targets and name == "pos_embed":
            targets = [t for t in wanted if t.rpartition(".")[2] == name]
        if not targets:
            skipped[name] = "no such name in the network"
        for target in targets:
            new, how = _fit(tensor, wanted[target], name)
            if new is None:
                skipped[name] = f"has shape {tuple(tensor.shape)}, the network {tuple(wanted[target].shape)}"
                continue
            _check_free(target, name, origin)
            state[target], origin[target] = new, name
            if how:
                fitted[target] = how
    return state, fitted, skipped


def _fit(tensor: Tensor, like: Tensor, name: str) -> tuple[Tensor | None, str]:
    """A tensor in the shape of the network's, and what was done to it; None where it cannot be."""
    if tensor.shape == like.shape:
        return tensor, ""
    if name == "pos_embed" and tensor.ndim == like.ndim == 3 and tensor.shape[2] == like.shape[2]:
        count, wanted = tensor.shape[1], like.shape[1]
        side, target = math.isqrt(count), math.isqrt(wanted)
        if side * side != count:  # the first row is the class token's
            tensor, side = tensor[:, count - math.isqrt(count - 1) ** 2 :], math.isqrt(count - 1)
        resized = resize_positions(tensor.float(), side, target, target)
        return resized, f"positions of {side} x {side} tokens resized to {target} x {target}"
    stem = tensor.ndim == like.ndim == 4 and tensor.shape[0] == like.shape[0]
    if stem and tensor.shape[2:] == like.shape[2:] and tensor.shape[1] == 3 < like.shape[1]:
        extra = tensor.mean(dim=1, keepdim=True).expand(-1, like.shape[1] - 3, -1, -1)
        # Scaled, so that an image of equal bands excites the filters as before.
        return torch.cat([tensor, extra], dim=1) * (
            3 / like.shape[1]
        ), "further bands begin as the mean of three"
    return None, ""


def _from_vit_npz(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of the original ViT release to those of DeiT and timm.

    Dense kernels are (in, out), attention kernels (in, heads, d) and (heads, d, out).
    """
    new: dict[str, Tensor] = {}
    blocks = {m.group(1) for m in (re.match(r"Transformer/encoderblock_(\d+)/", k) for k in given) if m}
    for block in sorted(blocks, key=int):
        base, to = f"Transformer/encoderblock_{block}", f"blocks.{block}"
        for theirs, ours in (("LayerNorm_0", "norm1"), ("LayerNorm_2", "norm2")):
            new[f"{to}.{ours}.weight"] = given[f"{base}/{theirs}/scale"]
            new[f"{to}.{ours}.bias"] = given[f"{base}/{theirs}/bias"]
        for theirs, ours in (("Dense_0", "fc1"), ("Dense_1", "fc2")):
            new[f"{to}.mlp.{ours}.weight"] = given[f"{base}/MlpBlock_3/{theirs}/kernel"].T
            new[f"{to}.mlp.{ours}.bias"] = given[f"{base}/MlpBlock_3/{theirs}/bias"]
        attention = f"{base}/MultiHeadDotProductAttention_1"
        heads = [given[f"{attention}/{part}/kernel"] for part in ("query", "key", "value")]
        new[f"{to}.attn.qkv.weight"] = torch.cat([h.flatten(1).T for h in heads])
        new[f"{to}.attn.qkv.bias"] = torch.cat(
            [given[f"{attention}/{part}/bias"].flatten() for part in ("query", "key", "value")]
        )
        new[f"{to}.attn.proj.weight"] = given[f"{attention}/out/kernel"].flatten(0, 1).T
        new[f"{to}.attn.proj.bias"] = given[f"{attention}/out/bias"]
    for theirs, ours in (("scale", "weight"), ("bias", "bias")):
        if f"Transformer/encoder_norm/{theirs}" in given:
            new[f"norm.{ours}"] = given[f"Transformer/encoder_norm/{theirs}"]
    if "Transformer/posembed_input/pos_embedding" in given:
        new["pos_embed"] = given["Transformer/posembed_input/pos_embedding"]
    return new


def _with_qkv(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Layers `query`, `key` and `value` side by side become one, `qkv`."""

    def renamed() -> Iterator[tuple[str, str, Tensor]]:
        for name, tensor in given.items():
            module, _, leaf = name.rpartition(".")
            base, _, layer = module.rpartition(".")
            parts = [given.get(f"{base}.{part}.{leaf}") for part in ("query", "key", "value")]
            whole = [part for part in parts if part is not None]
            if layer not in ("query", "key", "value") or len(whole) < 3:
                yield name, name, tensor
            elif layer == "query":
                yield f"{base}.qkv.{leaf}", name, torch.cat(whole)

    return _by_new_names(renamed())


def _from_lovecs(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Statistics of both sensors, and the scale and shift that they share."""

    def renamed(name: str) -> str:
        head, _, last = name.rpartition(".")
        kind, _, domain = last.rpartition("_")
        if kind in ("running_mean", "running_var") and domain in ("source", "target"):
            name = f"{head}.norms.{int(domain == 'target')}.{kind}"
        elif kind in ("weight", "bias") and domain == "source":
            name = f"{head}.{kind}"
        return re.sub(r"^(resnet|backbone|encoder)\.", "encoder.", name)

    return _by_new_names((renamed(name), name, tensor) for name, tensor in given.items())


_STEMS = ("_conv_stem.weight", "layer1.0.conv1.weight")
"""A name that each kind of backbone has once."""


def _from_band_fusion(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Backbones by their public names, wherever they stand: the first sees the bands of 10 m.

    Their own classifiers are of no use in the fusions of EfficientNets; in the late ResNet twin they are.
    """
    stems = [(name, end) for name in given for end in _STEMS if name.endswith(end)]
    prefixes = [name.removesuffix(end) for name, end in stems]
    if len(prefixes) == 2:
        places = ["encoder.fine.net.", "encoder.coarse.net."]
    else:
        conv1 = given.get(f"{prefixes[0]}conv1.weight") if prefixes else None
        joins = conv1 is not None and conv1.shape[0] == _JOINED
        places = ["encoder.net." if joins else "encoder.levels.net."]

    def renamed(name: str) -> str:
        known = [(p, to) for p, to in zip(prefixes, places, strict=False) if name.startswith(p)]
        prefix, to = max(known, key=lambda pair: len(pair[0]), default=("", ""))
        rest = name.removeprefix(prefix)
        return f"{to}{rest}" if _OF_BACKBONE.match(rest) else name

    return _by_new_names((renamed(name), name, tensor) for name, tensor in given.items())


_JOINED = 58
"""Channels of the first convolution where 20 m bands join behind it."""

_OF_BACKBONE = re.compile(r"(_conv_stem|_conv_head|_blocks|_bn[01]|conv1|bn1|layer\d)\.")


SOURCES: dict[str, Source] = {
    "torchvision-resnet": Source(
        "ImageNet weights of a ResNet, torchvision's names", "layer1.0.conv1.weight"
    ),
    "efficientnet": Source(
        "ImageNet weights of an EfficientNet, efficientnet-pytorch's names", "_conv_stem.weight"
    ),
    "segformer": Source("MiT encoder of SegFormer", "patch_embed1.proj.weight"),
    "daformer": Source("DAFormer or DASPM checkpoint, encoder and head", ""),
    "deit": Source("ImageNet weights of a DeiT or timm's ViT", "blocks.0.attn.qkv.weight"),
    "vit-npz": Source("original release of ViT, .npz", "blocks.0.attn.qkv.weight", _from_vit_npz),
    "lovecs": Source(
        "LoveCS checkpoint with the statistics of both sensors", "", _from_lovecs, table="lovecs"
    ),
    "paraformer": Source("Paraformer checkpoint", "", _with_qkv, by_order=True, table="paraformer"),
    "vcnet": Source("VCNet checkpoint", "", _with_qkv, by_order=True, table="vcnet"),
    "band-fusion": Source("checkpoint of the band fusions", "", _from_band_fusion, by_order=True),
}
