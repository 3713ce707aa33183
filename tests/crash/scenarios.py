"""What is cut off in the middle, and how it is gone on with.

A scenario makes a folder, does something to a product in it, and says what a user would type afterwards.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import rasterio
import typer
from affine import Affine
from odc.geo.geobox import GeoBox
from serving import write_product

from citycover_cli.app import main

ANSWERS = (0, 2, 3, 4, 5, 6)


BLOCK = 512
"""Pixels: of the scenes here, which makes two blocks."""


@contextlib.contextmanager
def hasty() -> Iterator[None]:
    """Small blocks, one parser; of a trained network little is measured, and only predictions are drawn."""
    from citycover.plan import fit
    from citycover_models.export import write
    from citycover_models.training import finish, journal, knowledge

    changes: list[tuple[Any, str, Any]] = [
        (fit, "MAX_BLOCK_HEIGHT", BLOCK), (fit, "MAX_BLOCK_WIDTH", BLOCK),
        (write, "probe_sides", lambda card: (2 * card.window.multiple,)),
        (finish, "safe_precision", lambda *_: "fp32"), (finish, "measurable", lambda _card: False),
        (knowledge, "_CHIPS", 3), (journal, "_events", lambda *_: None),
        (journal.Journal, "draw_curves", lambda _journal: None),
        (typer.main, "get_command", functools.cache(typer.main.get_command)),
    ]  # fmt: skip
    with contextlib.ExitStack() as stack:
        for owner, name, value in changes:
            stack.enter_context(mock.patch.object(owner, name, value))
        yield


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
    shared: bool = False
    """Several processes write there at once, so nobody removes what others have half written."""


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
    pixels = hashlib.sha256()
    for asset in sorted(item["assets"].values(), key=lambda asset: str(asset["href"])):
        path = out / asset["href"]
        assert path.exists(), f"{asset['href']} is listed and is not there"
        if path.is_dir():
            for inner in sorted(path.rglob("*")):
                pixels.update(inner.read_bytes() if inner.is_file() else str(inner.relative_to(out)).encode())
            continue
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert asset["file:checksum"].endswith(digest), f"{path.name} is not what item.json lists"
        if path.suffix == ".tif":
            with rasterio.open(path) as source:
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

    def layered(out: Path, *more: object) -> int:
        """All layers, and a Zarr of them."""
        return mapped(out, "--probabilities", "--entropy", "--format", "cog,zarr", *more)

    def plain(root: Path) -> None:
        mapped(root)

    def refined(out: Path) -> int:
        source = place / "refined" / "product"
        if not source.exists():
            mapped(source.parent)
        return run("refine", source, "--output", out / "product", "--majority", 3, "--quiet")

    return [
        Scenario("run", nothing, mapped_as(mapped), mapped, results),
        Scenario("resume", unfinished, mapped_as(mapped), mapped, results),
        Scenario("restart", unfinished, mapped_as(mapped, "--restart"), mapped, results),
        Scenario(
            "overwrite", other, mapped_as(mapped, "--overwrite"), lambda r: mapped(r, "--overwrite"), results
        ),
        Scenario("layers", nothing, mapped_as(layered), layered, results),
        Scenario(
            "layers-overwrite", plain, mapped_as(layered, "--overwrite"), lambda r: layered(r, "--overwrite"),
            results,
        ),
        Scenario("refine", nothing, mapped_as(refined), refined, results),
        Scenario("label-cache", tile, mapped_as(fetched), fetched, excerpt_of, shared=True),
    ]  # fmt: skip


def tile(root: Path) -> None:
    """A tile of a product of labels, put into the cache by hand."""
    folder = root / "labels" / "tiles" / "2020"
    folder.mkdir(parents=True)
    write_product(root / "tiles.toml", "http://127.0.0.1:9")
    with rasterio.open(
        folder / "N00E006.tif", "w", driver="GTiff", width=400, height=400, count=1, dtype="uint8",
        crs="EPSG:4326", transform=Affine(1 / 400, 0, 6, 0, -1 / 400, 1),
    ) as sink:  # fmt: skip
        sink.write(np.random.default_rng(2).choice(np.array([10, 20, 50], np.uint8), (1, 400, 400)))


def fetched(root: Path) -> int:
    """The part of the tile that a scene needs, as `map --labels` asks for it."""
    from citycover.errors import CitycoverError
    from citycover.evidence.fetch import find_labels

    grid = GeoBox((200, 200), Affine(1e-4, 0, 6.51, 0, -1e-4, 0.33), "EPSG:4326")
    try:
        with mock.patch.dict(os.environ, CITYCOVER_CACHE=str(root)):
            find_labels(root / "tiles.toml", grid)
    except CitycoverError as error:
        return error.exit_code
    return 0


def excerpt_of(root: Path) -> str | None:
    """The cells that are kept of a tile."""
    kept = [path for path in root.glob("labels/*/*/N00E006_*.tif") if not path.name.startswith(".")]
    if not kept:
        return None
    with rasterio.open(kept[0]) as source:
        return hashlib.sha256(source.read().tobytes()).hexdigest()[:16]


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
