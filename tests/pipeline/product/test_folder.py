"""What may lie in a product folder, and how a product appears in it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from citycover.errors import MachineError, ProductError
from citycover.files.lock import RunLock
from citycover.product import folder as folder_module
from citycover.product.folder import check_folder, claim_folder, publish_files
from citycover.store.work import WorkFolder

ITEM = json.dumps({"properties": {"processing:software": {"citycover": "0"}}})


def begin(folder: WorkFolder) -> None:
    """What `WorkingStore.create` does last."""
    (folder.work / "identity.json").write_text("{}")


def finish(folder: WorkFolder, *names: str) -> None:
    for name in names:
        (folder.staging / name).write_text(f"new {name}")
    (folder.staging / "item.json").write_text(ITEM)
    publish_files(folder)


def content(out: Path) -> set[str]:
    return {path.name for path in out.iterdir()}


@pytest.mark.parametrize("exists", [True, False])
def test_a_new_or_empty_folder_receives_the_product(tmp_path: Path, exists: bool) -> None:
    out = tmp_path / "a" / "b"
    if exists:
        out.mkdir(parents=True)
    with claim_folder(out) as folder:
        assert not folder.resumable
        begin(folder)
        finish(folder, "landcover.tif", "run.json")
    assert content(out) == {"landcover.tif", "run.json", "item.json"}


def test_the_item_appears_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = []
    rename = Path.rename
    monkeypatch.setattr(Path, "rename", lambda self, to: (order.append(self.name), rename(self, to))[1])
    with claim_folder(tmp_path / "out") as folder:
        finish(folder, "preview.png", "landcover.tif", "run.json")
    assert order == ["landcover.tif", "preview.png", "run.json", "item.json"]


def test_an_unfinished_run_is_resumed_and_restart_drops_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with claim_folder(out) as folder:
        begin(folder)
        (folder.work / "ledger").mkdir()
    with claim_folder(out) as folder:
        assert folder.resumable
    with claim_folder(out, restart=True) as folder:
        assert not folder.resumable
        assert content(folder.work) == {"lock", "publish"}


def test_a_kill_while_publishing_leaves_a_run_that_can_be_resumed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with claim_folder(out) as folder:
        begin(folder)
        (folder.out / "landcover.tif").write_text("renamed already")
    with claim_folder(out) as folder:
        assert folder.resumable
        finish(folder, "landcover.tif")
    assert (out / "landcover.tif").read_text() == "new landcover.tif"


def test_a_run_that_ends_before_its_first_block_leaves_no_trace(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), claim_folder(tmp_path / "out"):
        raise ZeroDivisionError
    assert not (tmp_path / "out").exists()


def test_a_finished_product_is_replaced_only_on_request_and_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with claim_folder(out) as folder:
        finish(folder, "landcover.tif", "entropy.tif")
    (out / "notes.txt").write_text("the user's own")
    with pytest.raises(ProductError, match="--overwrite"):
        check_folder(out)
    with claim_folder(out, overwrite=True) as folder:
        assert "entropy.tif" in content(out), "the old product stays until the new one is there"
        finish(folder, "landcover.tif")
    assert content(out) == {"landcover.tif", "item.json", "notes.txt"}


@pytest.mark.parametrize("name", ["photo.jpg", "landcover.tif", "item.json"])
def test_other_content_is_refused_even_with_overwrite(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    for overwrite in (False, True):
        with (
            pytest.raises(ProductError, match=f"other content: {name}"),
            claim_folder(tmp_path, overwrite=overwrite),
        ):
            pass
    assert content(tmp_path) == {name}


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for out in (file, file / "below"):
        with pytest.raises(ProductError, match="is a file"):
            check_folder(out)


def test_a_folder_that_cannot_be_written_is_an_error_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module.os, "access", lambda path, mode: False)  # root may write anywhere
    for out in (tmp_path, tmp_path / "new"):
        with pytest.raises(MachineError, match="permission"):
            check_folder(out)


def test_two_runs_exclude_each_other(tmp_path: Path) -> None:
    with claim_folder(tmp_path / "out"), pytest.raises(ProductError, match=f"process {os.getpid()}"):
        RunLock(tmp_path / "out" / ".work" / "lock").acquire()
