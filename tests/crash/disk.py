"""What a power cut can leave of a folder: every state that POSIX allows, from what was seen to be done to it.

    record what a run does ─▶ operations ─▶ for each moment: what must be there, what may be lost ─▶ states

A recording hooks the functions of `os` that change folders or synchronise; files are compared with what was
known at each of these moments, so that whatever wrote them (Python, GDAL, torch, Pillow) is seen, also where
nobody thought of it. What POSIX promises:

- a file's bytes are on the disk once it was synchronised; until then any version since, or nothing;
- an entry of a folder (made, renamed, removed) is on the disk once the folder was synchronised; until then it
  may be lost, whatever became of those before and after it.

All combinations are too many, so each moment gets a bounded choice of them: all lost, all kept, each one lost
alone, each one kept alone, all from one on; files empty, torn or old; and some by chance.
"""

# Paths are text here, as the hooked functions get them.
# ruff: noqa: PTH109, PTH115, PTH118, PTH120

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import os
import random
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

_HOOKED = ("fsync", "fdatasync", "rename", "replace", "link", "unlink", "remove", "rmdir", "mkdir")

_PASSING = re.compile(r"(^|/)\.[^/]*\.tmp[^/]*$")
"""Half written files: removed before anything is read of them."""

_LOCK = re.compile(r"(^|/)\.?lock$")
"""Opened, and never read: what stands in it is asked for by those who find it taken."""

_RUBBISH = (
    (r"\.work/publish/.*", "", False),  # what was about to be published: whoever comes removes it
    (r"\.work/(store\.zarr|ledger)/.*", ".work/identity.json", False),  # blocks without a sign
    (r"checkpoint\.pt", "result.json", True),  # once a training ended it is left alone or removed
)
"""Nobody asks for what is in such files, or whether they are there; where another is a file, or is none."""

_MOST = 400
"""States of one moment: where there are more, so many of them are drawn."""

Tree = dict[str, "bytes | None"]
"""Relative path -> content; None: a folder."""


@dataclass(frozen=True)
class Operation:
    """One thing that was done, or seen to have been done."""

    kind: str
    """create, mkdir, rename, remove: entries of folders; write: bytes of a file; sync: a file or a folder."""
    path: str
    to: str = ""
    """Of a rename."""
    node: int = 0
    """Which file: it stays the same through renames."""
    content: bytes = b""

    @property
    def folder(self) -> str | None:
        """The folder that must be synchronised before it is sure; None: it changes no entry.

        Of a rename it is that of the new name: both names change at once, or neither.
        """
        changes = self.kind in {"create", "mkdir", "rename", "remove"}
        return os.path.dirname(self.to or self.path) if changes else None


@dataclass(frozen=True)
class Known:
    """A file or folder as it was last seen."""

    node: int
    """Number of the file: it stays the same through renames and is never given again."""
    inode: int
    content: bytes | None
    """None: a folder."""


@dataclass
class Recording:
    """Operations below a folder, in order."""

    root: Path
    start: dict[str, Known] = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)
    known: dict[str, Known] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    _nodes: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def look(self) -> None:
        """Note what was made, written or removed since the last look."""
        seen = dict(_walk(self.root))
        for path in sorted(self.known.keys() - seen.keys(), reverse=True):
            self.operations.append(Operation("remove", path, node=self.known.pop(path).node))
        for path, (inode, content) in seen.items():
            known = self.known.get(path)
            if known is None or known.inode != inode or (known.content is None) != (content is None):
                known = Known(next(self._nodes), inode, None if content is None else b"")
                kind = "mkdir" if content is None else "create"
                self.operations.append(Operation(kind, path, node=known.node))
            if known.content != content:
                assert content is not None, "a folder that became a file was made anew"
                self.operations.append(Operation("write", path, node=known.node, content=content))
            self.known[path] = Known(known.node, inode, content)

    def inner(self, path: Any, dir_fd: int | None = None) -> str | None:
        """A path below the root, relative to it; None: it is elsewhere."""
        if isinstance(path, int):
            full = os.readlink(f"/proc/self/fd/{path}")
        else:
            base = os.readlink(f"/proc/self/fd/{dir_fd}") if dir_fd is not None else os.getcwd()
            full = os.path.join(base, os.fspath(path))
        relative = os.path.relpath(os.path.normpath(full), self.root)
        return None if relative.startswith("..") else "" if relative == "." else relative

    def synced(self, path: str) -> None:
        """Note that a file or folder was synchronised."""
        node = self.known[path].node if path in self.known else 0
        self.operations.append(Operation("sync", path, node=node))

    def renamed(self, path: str, to: str) -> None:
        """Note a rename that was just done."""
        self.operations.append(Operation("rename", path, to, self.known[path].node))
        for old in [p for p in self.known if p == path or p.startswith(f"{path}/")]:
            self.known[to + old[len(path) :]] = self.known.pop(old)

    def linked(self, path: str, to: str) -> None:
        """Note that a file was given another name."""
        self.operations.append(Operation("create", to, node=self.known[path].node))
        self.known[to] = self.known[path]


@contextlib.contextmanager
def record(root: Path) -> Iterator[Recording]:
    """Record what is done below a folder while the context lasts, by any thread of this process."""
    recording = Recording(root.resolve())
    recording.look()
    recording.start = dict(recording.known)
    recording.operations.clear()
    real = {name: getattr(os, name) for name in _HOOKED}

    def hooked(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with recording.lock:
                recording.look()
                path = recording.inner(args[0], kwargs.get("dir_fd"))
                result = real[name](*args, **kwargs)
                if path is not None and name in {"fsync", "fdatasync"}:
                    recording.synced(path)
                elif path is not None and name in {"rename", "replace"}:
                    to = recording.inner(args[1])
                    assert to is not None, "nothing is renamed out of the folder"
                    recording.renamed(path, to)
                elif path is not None and name == "link":
                    recording.linked(path, recording.inner(args[1]) or "")
                recording.look()
                return result

        return call

    try:
        for name in _HOOKED:
            setattr(os, name, hooked(name))
        yield recording
        recording.look()
    finally:
        for name, function in real.items():
            setattr(os, name, function)


def _walk(root: Path) -> Iterator[tuple[str, tuple[int, bytes | None]]]:
    for path in sorted(root.rglob("*")):
        with contextlib.suppress(FileNotFoundError):  # another thread may just have moved it
            content = None if path.is_dir() else path.read_bytes()
            yield str(path.relative_to(root)), (path.lstat().st_ino, content)


@dataclass(frozen=True)
class State:
    """What a power cut left."""

    moment: int
    """Number of operations that had been done."""
    tree: Tree
    lost: str
    """In words, for a failing test."""

    @property
    def unopened(self) -> frozenset[str]:
        """Files that are left alone, or removed before they are opened."""
        return frozenset(path for path in self._files if is_passing(path) or self._is_rubbish(path))

    @property
    def locks(self) -> frozenset[str]:
        """Files that are opened and not read."""
        return frozenset(path for path in self._files if _LOCK.search(path))

    @property
    def digest(self) -> str:
        """The same for states that no reader can tell apart.

        Of a lock and of a half written file it counts that it is there; of rubbish, that its folder is.
        """
        parts, unread = hashlib.sha256(), self.unopened | self.locks
        for path, content in sorted(self.tree.items()):
            if not self._is_rubbish(path):
                told = content is not None and path not in unread and _digest(content)
                parts.update(repr((path, content is None, told)).encode())
        return parts.hexdigest()

    @property
    def _files(self) -> Iterator[str]:
        return (path for path, content in self.tree.items() if content is not None)

    def _is_rubbish(self, path: str) -> bool:
        other, wanted = _rubbish_by(path)
        return other is not None and (self.tree.get(other) is not None) == wanted

    def write(self, folder: Path) -> None:
        """Make it for real, in a folder that is empty."""
        for path, content in sorted(self.tree.items()):
            if content is None:
                (folder / path).mkdir(parents=True, exist_ok=True)
            else:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(content)


def is_passing(path: str) -> bool:
    """Whether a file is half written, by its name."""
    return _PASSING.search(path) is not None


@functools.lru_cache(4096)
def _rubbish_by(path: str) -> tuple[str | None, bool]:
    """The file that decides whether a path is rubbish, and whether it must be there; None: it never is."""
    for pattern, other, wanted in _RUBBISH:
        if found := re.fullmatch(rf"((?:.*/)?){pattern}", path):
            return found[1] + other, wanted
    return None, False


def states(recording: Recording, *, seed: int = 0) -> Iterator[State]:
    """Every different state that a power cut may leave, for each moment of a recording.

    A folder that is removed with its content counts as lost with it.
    """
    seen: set[str] = set()
    chance = random.Random(seed)
    done = [replace(op, path=_foreign(op.path), to=_foreign(op.to)) for op in recording.operations]
    for moment in range(len(done) + 1):
        for state in _states_at(recording.start, done[:moment], chance):
            if state.digest not in seen:
                seen.add(state.digest)
                yield state


def left_by(root: Path, work: Callable[[], object]) -> list[Tree]:
    """Every tree that a power cut may leave of a folder while something is done to it, or afterwards."""
    with record(root) as recording:
        work()
    return [state.tree for state in states(recording)]


def _foreign(path: str) -> str:
    """As a process of another number would have called it, so that who goes on does not write over it."""
    return path.replace(f".{os.getpid()}.tmp", ".1.tmp")


def _states_at(start: dict[str, Known], done: Sequence[Operation], chance: random.Random) -> Iterator[State]:
    folders = {op.path: k for k, op in enumerate(done) if op.kind == "sync"}
    files = {op.node: k for k, op in enumerate(done) if op.kind == "sync"}
    pending = [k for k, op in enumerate(done) if op.folder is not None and folders.get(op.folder, -1) < k]
    loose = {k for k, op in enumerate(done) if op.kind == "write" and files.get(op.node, -1) < k}
    dirty = sorted({done[k].node for k in loose})
    chosen = list(itertools.product(_choices(pending, chance), _data_choices(dirty)))
    for lost, data in chosen if len(chosen) <= _MOST else chance.sample(chosen, _MOST):
        tree = _apply(start, done, set(lost), {k: data.get(done[k].node, "") for k in loose})
        yield State(len(done), tree, _words(done, lost, data))


def _choices(pending: Sequence[int], chance: random.Random) -> Iterator[tuple[int, ...]]:
    """Which of the entries that may be lost are."""
    if len(pending) <= 4:
        for length in range(len(pending) + 1):
            yield from itertools.combinations(pending, length)
        return
    yield ()
    yield tuple(pending)
    for k in range(len(pending)):
        yield (pending[k],)
        yield (*pending[:k], *pending[k + 1 :])
        yield tuple(pending[k:])
    for _ in range(8):
        yield tuple(k for k in pending if chance.random() < 0.5)


def _data_choices(dirty: Sequence[int]) -> Iterator[dict[int, str]]:
    """What became of the files whose bytes may be lost."""
    yield {}
    if dirty:
        for fate in ("old", "empty", "torn"):
            yield dict.fromkeys(dirty, fate)
        if len(dirty) > 1:
            for node in dirty:
                yield {node: "old"}


def _apply(start: dict[str, Known], done: Sequence[Operation], lost: set[int], fates: dict[int, str]) -> Tree:
    """The tree after operations, without those that were lost; `fates` is of writes, by their number."""
    entries: dict[str, int | None] = {}
    data: dict[int, bytes] = {}
    for path, known in start.items():
        entries[path] = None if known.content is None else known.node
        if known.content is not None:
            data[known.node] = known.content
    for k, op in enumerate(done):
        match op.kind:
            case "write":
                _write(op, fates.get(k, ""), data)
            case _ if k in lost:
                continue
            case "create" | "mkdir" if _has_parent(op.path, entries):
                entries[op.path] = None if op.kind == "mkdir" else op.node
            case "remove":
                for path in [p for p in entries if p == op.path or p.startswith(f"{op.path}/")]:
                    del entries[path]
            case "rename" if op.path in entries and _has_parent(op.to, entries):
                moved = {p: n for p, n in entries.items() if p == op.path or p.startswith(f"{op.path}/")}
                for path in moved:
                    del entries[path]
                entries |= {op.to + p[len(op.path) :]: n for p, n in moved.items()}
            case _:
                pass
    return {path: None if node is None else data.get(node, b"") for path, node in entries.items()}


def _write(op: Operation, fate: str, data: dict[int, bytes]) -> None:
    match fate:
        case "old":
            data.setdefault(op.node, b"")
        case "empty":
            data[op.node] = b""
        case "torn":
            data[op.node] = _torn(op.content)
        case _:
            data[op.node] = op.content


@functools.lru_cache(4096)
def _torn(content: bytes) -> bytes:
    return content[: len(content) // 2]


@functools.lru_cache(4096)
def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def _has_parent(path: str, entries: dict[str, int | None]) -> bool:
    above = os.path.dirname(path)
    return not above or (above in entries and entries[above] is None)


def _words(done: Sequence[Operation], lost: Sequence[int], fates: dict[int, str]) -> str:
    last = done[-1] if done else None
    gone = [f"{done[k].kind} {done[k].path}{' -> ' + done[k].to if done[k].to else ''}" for k in lost]
    names = {op.node: op.path for op in done if op.kind == "write"}
    bytes_ = [f"{names[node]} {fate}" for node, fate in fates.items()]
    return f"after {last and (last.kind, last.path)}: lost {gone or 'nothing'}; bytes {bytes_ or 'all there'}"
