import io
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from making import make_card

from citycover.errors import ModelError
from citycover.model.archive import read_model_file
from citycover.model.builtin import builtin_path
from citycover.model.network import load_exported, load_torchscript, write_exported
from citycover.model.trust import check_exported, check_torchscript
from citycover.model.trusted import TRUSTED, check_trusted


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(3, 1, 1))
        self.register_buffer("shift", torch.arange(5.0)[:, None, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.float() * self.scale).mean(1, keepdim=True) + self.shift


class Evil:
    """Runs code when it is unpickled: here, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    path = tmp_path / "net.pt2"
    program = torch.export.export(Net().eval(), (torch.rand(2, 3, 64, 64),))
    write_exported(program, make_card(64, 4, 8), path)
    return path


def replaced(path: Path, change: Callable[[str, bytes], tuple[str, bytes] | None], **more: bytes) -> Path:
    """A copy of an archive with members changed, left out or added."""
    out = path.with_name(f"changed-{path.name}")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        root = old.namelist()[0].split("/")[0]
        for name in old.namelist():
            if kept := change(name, old.read(name)):
                new.writestr(*kept)
        for name, content in more.items():
            new.writestr(f"{root}/{name.replace('__', '/').replace('_DOT_', '.')}", content)
    return out


def test_an_honest_export_is_loaded(exported: Path) -> None:
    check_exported(exported)
    assert load_exported(exported, "cpu")(torch.rand(2, 3, 64, 64)).shape == (2, 5, 64, 64)


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("how", ["torch.save", "pickle", "nested"])
def test_samples_that_are_no_tensors_never_run(exported: Path, tmp_path: Path, how: str) -> None:
    mark = tmp_path / "it ran"
    evil = {"torch.save": saved(((Evil(mark),), {})), "pickle": pickle.dumps(Evil(mark)),
            "nested": saved(([torch.ones(2), {"x": Evil(mark)}], {}))}[how]  # fmt: skip
    bad = replaced(exported, lambda n, c: (n, evil if "sample_inputs" in n else c))
    with pytest.raises(ModelError, match=r"nothing of it was run: .* more than tensors"):
        load_exported(bad, "cpu")
    assert not mark.exists()


@pytest.mark.parametrize("place", ["weights", "constants"])
@pytest.mark.parametrize(
    "listed",
    ['"use_pickle": true, "tensor_meta": null', '"use_pickle": false, "tensor_meta": null',
     '"use_pickle": false, "tensor_meta": {"dtype": 7}', "nothing"],
)  # fmt: skip
def test_weights_and_constants_are_looked_into(
    exported: Path, tmp_path: Path, place: str, listed: str
) -> None:
    mark = tmp_path / "it ran"
    config = f"data/{place}/model_{place}_config.json"
    text = (
        '{"config": {"x": {"path_name": "custom_obj_0", "is_param": false, '
         f"{listed}}}}}}}" if listed != "nothing" else "not json"
    )  # fmt: skip

    def change(name: str, content: bytes) -> tuple[str, bytes]:
        return (name, text.encode()) if name.endswith(config) else (name, content)

    bad = replaced(exported, change, **{f"data__{place}__custom_obj_0": saved(Evil(mark))})
    with pytest.raises(ModelError, match="more than tensors"):
        load_exported(bad, "cpu")
    assert not mark.exists()


def test_compiled_code_and_strangers_in_an_archive_are_refused(exported: Path) -> None:
    bad = replaced(exported, lambda n, c: (n, c), data__aotinductor__model__x_DOT_so=b"\x7fELF")
    with pytest.raises(ModelError, match=r"x\.so, which is no part of a network"):
        check_exported(bad)


class Writes(torch.nn.Module):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, self.path)
        return x


def test_a_script_that_writes_files_never_runs(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(Writes(str(tmp_path / "written"))), tmp_path / "net.pt")
    with pytest.raises(ModelError, match=r"calls torch\.save, which reaches for files"):
        load_torchscript(tmp_path / "net.pt", "cpu")


def test_the_models_that_ship_pass() -> None:
    for name in ("spectral-rgbn", "urban-rgbn-1m"):
        check_torchscript(builtin_path(name))


def test_a_required_hash_must_be_that_of_the_file(tmp_path: Path) -> None:
    model = read_model_file(builtin_path("spectral-rgb"))
    check_trusted(model.path, model.sha256, model.sha256[:12].upper())
    check_trusted(model.path, model.sha256, "sha256:" + model.sha256)
    with pytest.raises(ModelError, match="is required"):
        check_trusted(model.path, model.sha256, "0" * 64)
    for wrong in ("12ab", "xyz" * 4, ""):
        with pytest.raises(ModelError, match="hexadecimal digits"):
            check_trusted(model.path, model.sha256, wrong)


def test_only_listed_models_are_trusted_where_there_is_a_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = read_model_file(builtin_path("spectral-rgb"))
    monkeypatch.setenv(TRUSTED, str(tmp_path / "trusted.txt"))
    with pytest.raises(ModelError, match="cannot be read"):
        check_trusted(model.path, model.sha256, None)
    (tmp_path / "trusted.txt").write_text("# ours\n" + "0" * 64 + "  other.pt\n")
    with pytest.raises(ModelError, match="is not trusted"):
        check_trusted(model.path, model.sha256, None)
    with (tmp_path / "trusted.txt").open("a") as file:
        file.write(f"{model.sha256.upper()}  spectral-rgb.pt, from the package\n")
    check_trusted(model.path, model.sha256, None)


def test_a_card_that_is_a_bomb_is_refused(tmp_path: Path) -> None:
    path = shutil.copy(builtin_path("spectral-rgb"), tmp_path / "m.pt")
    bomb = b" " * (5 << 20) + b"{}"
    bad = replaced(path, lambda n, c: (n, bomb if n.endswith("card.json") else c))
    with pytest.raises(ModelError, match="larger than 4 MiB"):
        read_model_file(bad)
    nested = replaced(path, lambda n, c: (n, b"[" * 100_000 if n.endswith("card.json") else c))
    with pytest.raises(ModelError, match="not JSON"):
        read_model_file(nested)
