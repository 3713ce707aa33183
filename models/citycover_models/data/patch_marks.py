"""Whether the files of patches are still those that they were."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from citycover_models.data.patches import Patch

_ASKERS, _PIECE = 16, 256
"""Threads that ask, for a drive may answer late, and the patches that each asks for at once."""


@dataclass(frozen=True, slots=True)
class Marks:
    """Of patches, by name: another one as soon as a file has another size or date."""

    bands: Mapping[str, str]
    codes: Mapping[str, str]
    """Of the reference maps; empty: they were not asked for."""


def mark_patches(patches: Sequence[Patch], *, references: bool) -> Marks:
    """Ask the file system for sizes and dates of the files of patches; opens none of them.

    Args:
        patches: of different names.
        references: whether their reference maps are looked at, too.
    """
    codes = _marks(patches, lambda patch: [patch.reference]) if references else {}
    return Marks(_marks(patches, lambda patch: patch.files), codes)


def _marks(patches: Sequence[Patch], files: Callable[[Patch], list[str]]) -> dict[str, str]:
    def look(first: int) -> list[tuple[str, str]]:
        return [(patch.name, _mark(files(patch))) for patch in patches[first : first + _PIECE]]

    with ThreadPoolExecutor(_ASKERS) as pool:
        return dict(found for some in pool.map(look, range(0, len(patches), _PIECE)) for found in some)


def _mark(paths: Sequence[str]) -> str:
    return hashlib.blake2b(repr([_stamp(path) for path in paths]).encode(), digest_size=8).hexdigest()


def _stamp(path: str) -> tuple[int, int] | None:
    """(bytes, modification time in ns), which a faithful copy keeps; None: no file."""
    try:
        found = os.stat(path)  # noqa: PTH116 - millions are asked for, and a Path takes longer than the answer
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns
