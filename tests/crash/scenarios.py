"""What is cut off in the middle, and how it is gone on with.

A scenario makes a folder, does something to a product in it, and says what a user would type afterwards.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

from citycover_cli.app import main

ANSWERS = (0, 2, 3, 4, 5, 6)


@dataclass(frozen=True)
class Scenario:
    """One thing that may be cut off."""

    name: str
    prepare: Callable[[Path], None]
    """Make the folder as it is before."""
    act: Callable[[Path], None]
    """What is cut off."""
    go_on: Callable[[Path], int]
    """What the user types then; its exit code."""
    results: Callable[[Path], str | None]
    """A name of what stands there as finished: its pixels or weights; None: nothing that claims to be."""


def run(*words: object) -> int:
    """A command, quietly; its exit code."""
    logging.disable(logging.CRITICAL)
    try:
        main([str(word) for word in words])
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        logging.disable(logging.NOTSET)
    return 0


def make_scene(path: Path) -> Path:
    """Two blocks: 1,030 x 24 px of colours."""
    rng = np.random.default_rng(3)
    with rasterio.open(
        path, "w", driver="GTiff", width=1030, height=24, count=3, dtype="uint8", crs="EPSG:32633",
        transform=Affine(1, 0, 5e5, 0, -1, 5.8e6), photometric="rgb",
    ) as sink:  # fmt: skip
        sink.write(rng.integers(1, 255, (3, 24, 1030), dtype=np.uint8))
    return path


def product_of(out: Path) -> str | None:
    """The pixels of a product that says it is finished, as one name.

    Raises:
        AssertionError: it says so and is not whole.
    """
    sign = out / "item.json"
    if not sign.is_file():
        return None
    item = json.loads(sign.read_text())
    for asset in item["assets"].values():
        path = out / asset["href"]
        assert path.is_file(), f"{asset['href']} is listed and is not there"
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert asset["file:checksum"].endswith(digest), f"{path.name} is not what item.json lists"
    pixels = hashlib.sha256()
    for name in ("landcover.tif", "confidence.tif"):
        with rasterio.open(out / name) as source:
            pixels.update(source.read().tobytes())
    return pixels.hexdigest()[:16]


def scenarios(place: Path) -> list[Scenario]:
    """All of them; inputs are made in `place`. That blocks are small is the caller's business."""
    scene = make_scene(place / "scene.tif")
    quick = ("--model", "spectral-rgb", "--window", 64, "--batch", 4, "--precision", "fp32", "--threads", 1)

    def mapped(out: Path, *more: object) -> int:
        return run("map", scene, "--out", out / "product", *quick, "--quiet", *more)

    def unfinished(root: Path) -> None:
        """A run that was stopped when one block was in the ledger, with another model."""
        stop_after_a_block(lambda: mapped(root))

    def other(root: Path) -> None:
        run("map", scene, "--out", root / "product", "--model", "urban-rgb-1m", "--quiet", "--threads", 1)

    def nothing(root: Path) -> None:
        root.mkdir(exist_ok=True)

    def results(root: Path) -> str | None:
        return product_of(root / "product")

    return [
        Scenario("run", nothing, mapped_as(mapped), mapped, results),
        Scenario("resume", unfinished, mapped_as(mapped), mapped, results),
        Scenario("restart", unfinished, mapped_as(mapped, "--restart"), mapped, results),
        Scenario(
            "overwrite", other, mapped_as(mapped, "--overwrite"), lambda r: mapped(r, "--overwrite"), results
        ),
    ]


def mapped_as(mapped: Callable[..., int], *more: object) -> Callable[[Path], None]:
    """The command as an act that must end well."""

    def act(root: Path) -> None:
        code = mapped(root, *more)
        assert code == 0, f"the command ended with {code}"

    return act


def stop_after_a_block(act: Callable[[], object]) -> None:
    """Do something until one block is in the ledger, then stop as a user would."""
    from citycover.compute.sink import StoreSink
    from citycover.errors import StoppedError

    real = StoreSink.write

    def write(self: StoreSink, finished: object) -> None:
        real(self, finished)  # type: ignore[arg-type]
        raise StoppedError("stopped")

    StoreSink.write = write  # type: ignore[method-assign,assignment]
    try:
        act()
    finally:
        StoreSink.write = real  # type: ignore[method-assign]


def copy_tree(source: Path, target: Path) -> None:
    """A folder as it is, in a place that does not exist yet."""
    shutil.copytree(source, target, symlinks=True)
