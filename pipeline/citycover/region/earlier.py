"""Earlier products of a scene, put aside when another takes their place: the last few are kept.

Which came last is noted as they come: their names are times, and a clock may be set back.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from citycover.errors import CitycoverError
from citycover.files.atomic import sync_folder, write_atomic
from citycover.files.plain import parse_json
from citycover.product.folder import drop_product, holds_product
from citycover.product.record import read_record

_DROPPED = re.compile(r"\.(unknown|\d{8}T\d{6}Z)(-\d+)?")
"""Names of those that are about to go."""


def hidden_name(product: Path) -> Path:
    """The name of a product that is about to go."""
    return product.with_name(f".{product.name}")


def drop_at_once(product: Path) -> None:
    """Remove a product, or go on with that: hidden first, so that nobody finds half of it.

    What else lies in it is found again where it was. Of a link to a product elsewhere the link goes.
    """
    hidden = hidden_name(product)
    if not os.path.lexists(hidden):
        product.rename(hidden)
    if hidden.is_symlink():
        hidden.unlink()
    drop_product(hidden)
    if hidden.exists() and not product.exists():
        hidden.rename(product)


@dataclass(frozen=True, slots=True)
class Earlier:
    """Of one scene."""

    folder: Path
    """Where they lie, each under the time when it was finished."""
    note: Path
    """Their names in the order in which they came."""

    def put(self, product: Path) -> None:
        """Move a product here."""
        self.folder.mkdir(parents=True, exist_ok=True)
        finished = None
        with contextlib.suppress(CitycoverError):
            finished = read_record(product / "run.json").timing.finished if holds_product(product) else None
        stem = "unknown" if finished is None else finished.strftime("%Y%m%dT%H%M%SZ")
        names = (stem, *(f"{stem}-{n}" for n in range(2, 1000)))
        name = next(name for name in names if not os.path.lexists(self.folder / name))
        # Before it comes: a name that is not there counts for nothing.
        known = [other for other in self._noted() if os.path.lexists(self.folder / other)]
        self.note.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.note, json.dumps([*known, name]))
        product.rename(self.folder / name)
        sync_folder(self.folder)

    def forget(self, keep: int) -> None:
        """Drop all but the last few; what is somebody else's stays, and counts for nothing.

        Of a link to a product elsewhere the link goes: what it leads to was put there by somebody.
        """
        if not self.folder.is_dir():
            return
        came = {name: number for number, name in enumerate(self._noted())}  # earlier versions noted none
        old = [path for path in self.folder.glob("[!.]*") if holds_product(path)]
        old.sort(key=lambda path: (came.get(path.name, -1), path.name))
        for path in old[: max(0, len(old) - keep)]:
            drop_at_once(path)
        for path in [path for path in self.folder.iterdir() if _DROPPED.fullmatch(path.name)]:
            drop_at_once(path.with_name(path.name.removeprefix(".")))
        with contextlib.suppress(OSError):  # it has content
            self.folder.rmdir()

    def _noted(self) -> list[str]:
        """Names in order; none where the note is damaged."""
        try:
            found = parse_json(self.note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []
