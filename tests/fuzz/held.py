"""Targets: what folders of ours hold, which a power cut, a disk or a hand may have changed."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mutate import edited_bytes
from target import Target, allowed, either

from citycover.errors import CitycoverError


def held_targets() -> list[Target]:
    """Of unfinished runs, trainings, sharpenings and decoded patches."""
    plan = {"citycover": "0.2.0", "recipe": {"name": "x"}, "samples": {"chips_per_epoch": 4}}
    rows = "".join(json.dumps({"step": n, "loss": 0.5, "lr": 1e-3}) + "\n" for n in range(1, 5))
    begun = {"recipe": "1f", "image": "2e", "seed": "0"}
    facts = {"labels": ["Pastures", "Sea and ocean"], "tile_source": "S2A_x_T33UUP_x.SAFE"}
    return [
        Target("identity", ".json", either([b"{}"], [_identity()], json.dumps), _resume),
        Target("training", ".json", either([json.dumps(plan).encode()], [plan], json.dumps), _look_at),
        Target("metrics", ".jsonl", edited_bytes([rows.encode()]), _read_metrics),
        Target("checkpoint", ".pt", edited_bytes([_checkpoint()]), allowed(_read_checkpoint)),
        Target("weights", ".pth", edited_bytes([_weights()]), allowed(_read_weights)),
        Target("sharpening", ".json", either([json.dumps(begun).encode()], [begun], json.dumps), _claim),
        Target("shards", ".json", either([b'[["a", "b"]]'], [[["a", "b"]]], json.dumps), _names),
        Target("patch", ".json", either([json.dumps(facts).encode()], [facts], json.dumps), _patch),
    ]


def _fresh(path: Path, name: str) -> Path:
    folder = path.parent / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _store() -> tuple[Any, Any]:
    from citycover.store.shard import ArraySpec, Layout

    return Layout((512, 600), (512, 512)), (ArraySpec("classes", 0),)


def _identity() -> Any:
    from citycover.store.store import FORMAT, _describe

    layout, arrays = _store()
    known = _describe(layout, arrays) | {"identity": {"plan": "ab", "card": "cd"}, "extra": {"batch": 4}}
    assert known["format"] == FORMAT
    return json.loads(json.dumps(known))


def _resume(path: Path) -> None:
    from citycover.files.store import PosixStore
    from citycover.store.store import WorkingStore

    folder = _fresh(path, "work")
    shutil.copy(path, folder / "identity.json")
    place = PosixStore(folder)
    layout, arrays = _store()
    identity = {"plan": "ab", "card": "cd"}
    steps: tuple[Callable[[], Any], ...] = (
        lambda: WorkingStore.resume(place, layout, arrays, identity).close(),
        lambda: WorkingStore.open(place).close(),
        lambda: WorkingStore.read_extra(place, identity),
    )
    for step in steps:
        allowed(lambda _path, step=step: step())(path)


@allowed
def _look_at(path: Path) -> None:
    from citycover_models.training.folder import training_folder

    folder = _fresh(path, "run")
    shutil.copy(path, folder / "plan.json")
    with training_folder(folder, resume=True, overwrite=False):
        pass


@allowed
def _read_metrics(path: Path) -> None:
    from citycover_models.training.journal import _read

    assert all(row["step"] < 10**5000 for row in _read(path))


def _checkpoint() -> bytes:
    from citycover_models.training.checkpoint import Checkpoint

    kept = io.BytesIO()
    weights = {"a.weight": torch.arange(6.0).reshape(2, 3)}
    torch.save(vars(Checkpoint("id", 3, weights, {"state": {0: {"step": 1}}, "param_groups": []})), kept)
    return kept.getvalue()


def _weights() -> bytes:
    kept = io.BytesIO()
    torch.save({"state_dict": {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}}, kept)
    return kept.getvalue()


def _read_weights(path: Path) -> Any:
    from citycover_models.weights.weights import read_weights

    return read_weights(path)


def _read_checkpoint(path: Path) -> Any:
    from citycover_models.training.checkpoint import read_checkpoint

    return read_checkpoint(path, "id")


def _claim(path: Path) -> None:
    from citycover_models.sharpen.folder import claim_sharpening

    for overwrite in (False, True):
        folder = _fresh(path, "product")
        (folder / ".sharpen").mkdir()
        shutil.copy(path, folder / ".sharpen" / "begun.json")
        try:
            with claim_sharpening(folder, {"seed": "1"}, overwrite=overwrite, restart=False):
                pass
        except CitycoverError:
            continue


@allowed
def _names(path: Path) -> None:
    """Decoded patches whose list is damaged are decoded again."""
    from citycover_models.data.shards import _BANDS, _rows_of

    folder = _fresh(path, "all")
    for name in _BANDS.shapes:
        (folder / name / "c" / "0").mkdir(parents=True)
    shutil.copy(path, folder / "names.json")
    rows = _rows_of(_BANDS, folder) or []
    assert all(isinstance(name, str) and isinstance(mark, str) for name, mark in rows)


@allowed
def _patch(path: Path) -> None:
    from citycover_models.data.bigearthnet import read_bigearthnet

    folder = _fresh(path, "ben") / "S2A_MSIL2A_20170613T101031_1_2"
    folder.mkdir()
    shutil.copy(path, folder / f"{folder.name}_labels_metadata.json")
    read_bigearthnet(folder.parent)
