"""Which scenes a region has at this moment."""

from __future__ import annotations

import functools
import glob
import hashlib
import logging
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from citycover.errors import ConfigError
from citycover.files.remote import Place, RemotePath, is_remote, matching
from citycover.geometry.tiles import Tile
from citycover.region.config import SceneSource, check_name
from citycover.scene.find import rasters_in
from citycover.scene.products import holds_product

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RegionScene:
    """Files of one place."""

    name: str
    files: tuple[str, ...]
    tile: Tile | None = None
    """Of the mosaic, and the files those of its sheets that its windows look at."""
    problem: str = ""
    """Why it cannot be mapped, where that is known before it is tried."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several parts of a region that are worked on side by side.

    Which part a scene is in depends on its name alone, so shards of one count never meet, and stay what they
    are when scenes come or go.

    >>> Shard.parse("2/3")
    Shard(index=2, count=3)
    """

    index: int = 1
    """From 1."""
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """`i/n` as it stands on a command line.

        Raises:
            ConfigError: it is no part of a whole.
        """
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count) <= 100_000):
            raise ConfigError(f"--shard takes i/n, from 1/n to n/n; got {text!r}")
        return cls(int(index), int(count))

    @classmethod
    def named(cls, text: str) -> Shard | None:
        """`i-of-n`, as a shard is written; None: it is no such name.

        >>> Shard.named(str(Shard(2, 3)))
        Shard(index=2, count=3)
        """
        found = re.fullmatch(r"(\d+)-of-(\d+)", text)
        return cls(int(found[1]), int(found[2])) if found else None

    def meets(self, other: Shard) -> bool:
        """Whether a scene may be in both.

        >>> Shard(1, 2).meets(Shard(2, 3)), Shard(1, 2).meets(Shard(2, 4))
        (True, False)
        """
        return (self.index - other.index) % math.gcd(self.count, other.count) == 0

    def holds(self, name: str) -> bool:
        """Whether a scene is in this part."""
        digest = hashlib.sha256(name.encode()).digest()
        return int.from_bytes(digest[:8]) % self.count == self.index - 1

    def __str__(self) -> str:
        return f"{self.index}-of-{self.count}"


def find_scenes(sources: Sequence[SceneSource], out: Place) -> tuple[RegionScene, ...]:
    """The scenes of a region, by name.

    A path without a pattern need not exist: its scene is found, and fails when it is looked at. A pattern
    finds nothing in `out`, where products are.

    Raises:
        ConfigError: there is none at all, or two have one name, or names that differ in case alone.
    """
    found: dict[str, RegionScene] = {}
    for source in sources:
        for scene in _scenes_of(source, out):
            # On many disks and shares names that differ in case alone are one.
            other = found.setdefault(scene.name.casefold(), scene)
            if other != scene:
                raise ConfigError(
                    f"two scenes would be called {scene.name!r}, upper and lower case being one: "
                    f"{other.files[0]} and {scene.files[0]}; "
                    'give one of them a name of its own under [[scenes]], or by = "folder" where each scene '
                    "has a folder"
                )
    if not found:
        patterns = ", ".join(file for source in sources for file in source.files)
        raise ConfigError(f"no file matches {patterns}; check files under [[scenes]]")
    return tuple(sorted(found.values(), key=lambda scene: scene.name))


def _scenes_of(source: SceneSource, out: Place) -> Iterator[RegionScene]:
    files = files_of(source, out)
    if source.name is not None:
        if files:
            yield RegionScene(source.name, rasters_of(dict.fromkeys(files)))
        return
    groups: dict[Path, list[str]] = {}
    for file in dict.fromkeys(files):
        groups.setdefault(Path(file).parent if source.by == "folder" else Path(file), []).append(file)
    for path, group in groups.items():
        name = path.name if source.by == "folder" else path.stem.removesuffix(".zarr")
        try:
            yield RegionScene(check_name(name), rasters_of(group))
        except ValueError as error:
            raise ConfigError(f"the scene {path}: {error}, or give it a name under [[scenes]]") from None


def files_of(source: SceneSource, out: Place) -> list[str]:
    """Files that a source names, as they are there now, in order."""
    found = []
    for pattern in source.files:
        if not (paths := _matches(pattern, out)):
            _warn_of(pattern)
        found += paths
    return found


@functools.cache  # once: `status --watch` looks again and again
def _warn_of(pattern: str) -> None:
    logger.warning("no file matches %s: nothing comes of it; check files under [[scenes]]", pattern)


def rasters_of(files: Iterable[str]) -> tuple[str, ...]:
    """Files, and of a folder those that are in it now: one more makes another scene of it."""
    found: list[str] = []
    for file in files:
        plain = Path(file).is_dir() and not holds_product(Path(file))
        rasters = rasters_in(Path(file)) if plain else ()
        found += map(str, rasters or (file,))
    return tuple(found)


def _matches(pattern: str, out: Place) -> list[str]:
    if is_remote(pattern):
        if "*" not in pattern:
            return [pattern]  # its ? and [] are those of an address
        if not pattern.startswith("s3://"):
            raise ConfigError(
                f"{pattern}: patterns find files on disks and of s3:// alone; name each file under [[scenes]]"
            )
        there = f"{out}/" if isinstance(out, RemotePath) else "//"
        return [path for path in matching(pattern) if not path.startswith(there)]
    if not glob.has_magic(pattern):
        return [pattern]
    found = glob.glob(pattern, recursive=True)  # noqa: PTH207 - the pattern is absolute
    if isinstance(out, RemotePath):
        return sorted(found)
    ours = out.resolve()
    return sorted(path for path in found if not Path(path).resolve().is_relative_to(ours))
