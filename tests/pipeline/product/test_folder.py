"""What may lie in a product folder, and how a product appears in it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from disk import left_by

from citycover.errors import MachineError, ProductError
from citycover.files.atomic import temporary_path
from citycover.files.lock import RunLock
from citycover.product import folder as folder_module
from citycover.product.folder import check_folder, claim_folder, publish_files
from citycover.store.work import WorkFolder


def item(*names: str) -> str:
    """What makes a folder a product of these files."""
    assets = {Path(name).stem: {"href": f"./{name}"} for name in names}
    return json.dumps({"properties": {"processing:software": {"citycover": "0"}}, "assets": assets})


def begin(folder: WorkFolder) -> None:
    """What `WorkingStore.create` does last, and a block."""
    (folder.work / "ledger").mkdir()
    (folder.work / "ledger/0_0.json").touch()
    (folder.work / "identity.json").write_text("{}")


def finish(folder: WorkFolder, *names: str) -> None:
    for name in names:
        (folder.staging / name).write_text(f"new {name}")
    (folder.staging / "item.json").write_text(item(*names))
    publish_files(folder)


def content(out: Path) -> set[str]:
    return {path.name for path in out.iterdir()}


def test_what_a_power_cut_leaves_of_a_product_without_a_store_can_be_made_again(tmp_path: Path) -> None:
    """As `refine` makes them: nothing to go on with, and no folder that is somebody else's."""
    recorded = tmp_path / "recorded"
    recorded.mkdir()

    def make(root: Path) -> None:
        with claim_folder(root / "out", overwrite=True) as folder:
            finish(folder, "landcover.tif", "run.json")

    trees = {tuple(sorted(tree.items())) for tree in left_by(recorded, lambda: make(recorded))}
    half = [tree for tree in trees if ("out/landcover.tif", b"new landcover.tif") in tree]
    assert half
    for number, tree in enumerate(trees):
        root = tmp_path / str(number)
        for name, bytes_ in tree:
            path = root / name
            (path if bytes_ is None else path.parent).mkdir(parents=True, exist_ok=True)
            if bytes_ is not None:
                path.write_bytes(bytes_)
        make(root)
        assert content(root / "out") == {"landcover.tif", "run.json", "item.json"}


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


def test_each_step_is_on_disk_before_the_next_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    with claim_folder(out) as folder:
        finish(folder, "entropy.tif")
    steps: list[tuple[str, str]] = []

    def note(step: str, function: Callable[..., Any], where: Callable[..., Path]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            path = where(*arguments)
            if step != "drop" or path.exists():
                steps.append((step, str(path.relative_to(tmp_path))))
            return function(*arguments, **options)

        return call

    with claim_folder(out, overwrite=True) as folder:
        begin(folder)
        monkeypatch.setattr(
            "os.fsync", note("sync", os.fsync, lambda fd: Path(f"/proc/self/fd/{fd}").resolve())
        )
        monkeypatch.setattr(Path, "rename", note("name", Path.rename, lambda _self, to: to))
        monkeypatch.setattr(Path, "replace", note("name", Path.replace, lambda _self, to: to))
        monkeypatch.setattr(Path, "unlink", note("drop", Path.unlink, lambda self: self))
        finish(folder, "preview.png", "landcover.tif")
        monkeypatch.undo()
    staged = {("sync", f"out/.work/publish/{name}") for name in ("preview.png", "landcover.tif", "item.json")}
    assert set(steps[:3]) == staged
    assert steps[3:] == [
        ("sync", "out/.work/publish"),
        ("name", "out/.work/replaced.json"),
        ("sync", "out"),
        ("sync", "out/.work"),
        ("drop", "out/entropy.tif"),
        ("name", "out/landcover.tif"),
        ("name", "out/preview.png"),
        ("sync", "out"),
        ("name", "out/item.json"),
        ("sync", "out"),
        ("sync", "."),
        ("drop", "out/.work/identity.json"),
        ("sync", "out/.work"),
    ]
    assert content(out) == {"landcover.tif", "preview.png", "item.json"}


def test_an_unfinished_run_is_resumed_and_restart_drops_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with claim_folder(out) as folder:
        begin(folder)
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


def test_a_run_without_a_block_has_nothing_to_go_on_with(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with claim_folder(out) as folder:
        begin(folder)
        (folder.work / "ledger/0_0.json").unlink()
        shutil.copytree(folder.work, tmp_path / "killed")
    assert not out.exists()
    out.mkdir()
    (tmp_path / "killed").rename(out / ".work")
    with claim_folder(out) as folder:
        assert not folder.resumable and content(folder.work) == {"lock", "publish"}


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


def test_of_a_replaced_product_only_what_it_lists_goes(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with claim_folder(out) as folder:
        finish(folder, "landcover.tif", "entropy.tif")
    (out / "landcover.zarr").mkdir()
    mine = ("labels.tif", "report.html", "landcover.zarr/mine.txt", "notes.txt")
    for name in mine:
        (out / name).write_text("mine")
    (out / "entropy.tif.aux.xml").write_text("statistics that a viewer left")
    with claim_folder(out, overwrite=True) as folder:
        finish(folder, "landcover.tif")
    assert content(out) == {
        "landcover.tif", "item.json", "labels.tif", "report.html", "landcover.zarr", "notes.txt",
    }  # fmt: skip
    assert all((out / name).read_text() == "mine" for name in mine)


def test_a_file_of_the_user_is_not_replaced_by_one_of_the_new_product(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with claim_folder(out) as folder:
        finish(folder, "landcover.tif")
    (out / "entropy.tif").write_text("mine")
    with claim_folder(out, overwrite=True) as folder:
        begin(folder)
        with pytest.raises(ProductError, match=r"holds entropy\.tif, .* move it away"):
            finish(folder, "landcover.tif", "entropy.tif")
    assert (out / "entropy.tif").read_text() == "mine"
    assert (out / "item.json").exists(), "the old product stays whole"
    with claim_folder(out, overwrite=True) as folder:
        assert folder.resumable, "what was computed is kept"


@pytest.mark.parametrize("restart", [False, True])
def test_a_kill_while_a_product_is_replaced_harms_neither_it_nor_the_users_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restart: bool
) -> None:
    out = tmp_path / "out"
    with claim_folder(out) as folder:
        finish(folder, "landcover.tif", "entropy.tif")
    (out / "notes.txt").write_text("mine")
    with claim_folder(out, overwrite=True) as folder:
        begin(folder)
        monkeypatch.setattr(Path, "rename", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            finish(folder, "landcover.tif")
        monkeypatch.undo()
        assert not (out / "item.json").exists()
    with pytest.raises(ZeroDivisionError), claim_folder(out, restart=restart):
        raise ZeroDivisionError  # not even a run that ends at once forgets what was to be replaced
    with claim_folder(out, restart=restart) as folder:
        assert folder.resumable is not restart
        finish(folder, "landcover.tif")
    assert content(out) == {"landcover.tif", "item.json", "notes.txt"}


def test_a_working_folder_that_is_a_link_or_holds_other_things_is_refused(tmp_path: Path) -> None:
    elsewhere = tmp_path / "scratch"
    elsewhere.mkdir()
    (elsewhere / "data.bin").write_text("mine")
    linked, mixed = tmp_path / "linked", tmp_path / "mixed"
    linked.mkdir()
    (linked / ".work").symlink_to(elsewhere)
    (mixed / ".work" / "notes").mkdir(parents=True)
    for restart in (False, True):
        with pytest.raises(ProductError, match="is a link"), claim_folder(linked, restart=restart):
            pass
        with pytest.raises(ProductError, match="no run writes: notes;"), claim_folder(mixed, restart=restart):
            pass
    assert content(elsewhere) == {"data.bin"} and content(mixed / ".work") == {"notes"}


def test_what_a_kill_leaves_of_a_moment_is_no_obstacle(tmp_path: Path) -> None:
    work = tmp_path / "out" / ".work"
    work.mkdir(parents=True)
    names = (temporary_path(work / "identity.json").name, ".host.77.probe", ".nfs0000000000a1", "lease")
    for name in names:
        (work / name).touch()
    with claim_folder(tmp_path / "out") as folder:
        assert content(folder.work) == {"lock", "publish"}


def test_a_restart_that_is_killed_while_it_clears_leaves_no_run_to_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with claim_folder(out) as folder:
        begin(folder)
    monkeypatch.setattr("shutil.rmtree", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError), claim_folder(out, restart=True):
        pass
    monkeypatch.undo()
    with claim_folder(out) as folder:
        assert not folder.resumable and content(folder.work) == {"lock", "publish"}


@pytest.mark.parametrize("taken", [False, True])
def test_a_run_whose_folder_was_removed_or_taken_over_publishes_nothing(tmp_path: Path, taken: bool) -> None:
    out = tmp_path / "out"
    with ExitStack() as other, claim_folder(out) as folder:
        begin(folder)
        assert folder.held()
        shutil.rmtree(out)
        assert not folder.held()
        if taken:
            theirs = other.enter_context(claim_folder(out))
            (theirs.staging / "item.json").write_text(item())
            begin(theirs)
        with pytest.raises(MachineError, match="removed or taken over"):
            publish_files(folder)
    assert out.exists() is taken
    if taken:
        assert content(out) == {".work"} and content(out / ".work") == {
            "lock",
            "identity.json",
            "ledger",
            "publish",
        }


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
