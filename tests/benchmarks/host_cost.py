"""What processors do for each pixel while a GPU computes, and what would bound a city on a large node.

    python tests/benchmarks/host_cost.py --size 32768 --cores 16 --forward 1e9

A run with a network of one operation, which costs next to nothing: what is left is the host's work, as
processor time by thread. Threads of a pool share theirs; each of the others works alone, so none may take as
long as the network. What a GPU does in their place (blending, layers, nodata) is left out, and strips are
copied once more, as they are into memory that a GPU may read. The last lines put both together: all stages at
once, the longest bounds.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from material import write_repeated
from numpy.typing import NDArray
from torch import Tensor, nn

from citycover.classes.legend import Legend, LegendClass
from citycover.engine import canvas, rows, transfer
from citycover.job.request import EngineOptions, Imagery, MapRequest
from citycover.machine.memory import tune_allocator
from citycover.model.card import BandGroup, ModelCard, WindowRule
from citycover.model.network import write_torchscript
from citycover.run.map import map_scene

CITY = 92_736
POOLS = {"citycover-decode": "decoding", "compress": "compressing, overviews, statistics"}
ALONE = {"citycover-reader": "strips", "shards": "shards of all layers to the disk"}
PREPARING, PUTTING = "masks of a row, its strips sent", "rows into blocks"
"""Done by the inference thread here; each by a thread of its own beside a GPU."""


class Sending:
    """Copies strips as `CudaTransfer` does: into memory that is used again."""

    def __init__(self) -> None:
        self.kept: dict[tuple[int, ...], Tensor] = {}

    def upload(self, values: NDArray[Any]) -> Tensor:
        """A strip, or the mask of one."""
        here = torch.from_numpy(values)
        if here.ndim == 3:  # masks go after the row
            self.kept.setdefault(values.shape, torch.empty(here.shape, dtype=here.dtype)).copy_(here)
        return here


class Trivial(nn.Module):
    """Two classes out of one band."""

    def forward(self, image: Tensor) -> Tensor:
        """(n, 2, y, x) probabilities."""
        first = image[:, :1].float() / 255
        return torch.cat([first, 1 - first], 1)


@dataclass
class Clock:
    """Processor seconds by what they were for."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def threads(self) -> Iterator[None]:
        """Look at the threads of this process now and then: what they used until they ended is not told."""
        used: dict[int, tuple[str, float]] = {}
        stop = threading.Event()

        def look() -> None:
            while not stop.wait(0.1):
                for thread in threading.enumerate():
                    name = thread.name.rsplit("_", 1)[0]
                    if name in POOLS | ALONE and (seconds := _used_by(thread.native_id)) is not None:
                        used[thread.native_id or 0] = name, seconds

        watcher = threading.Thread(target=look)
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join()
        for name, seconds in used.values():
            self.seconds[(POOLS | ALONE)[name]] += seconds

    def time(self, owner: object, method: str, name: str) -> None:
        """From now on add what a method takes."""
        plain = getattr(owner, method)

        def timed(*given: object, **named: object) -> object:
            begin = time.thread_time()
            try:
                return plain(*given, **named)
            finally:
                self.seconds[name] += time.thread_time() - begin

        setattr(owner, method, timed)


def _used_by(thread: int | None) -> float | None:
    try:
        fields = Path(f"/proc/self/task/{thread}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None  # it has just ended
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def write_trivial(path: Path) -> Path:
    """The network as a model file."""
    bands = BandGroup(bands=("red", "green", "blue"), dtypes=("uint8",), fill=(90, 90, 90))
    classes = tuple(LegendClass(id=k, name=f"class {k}", color=f"#{k * 60:02x}8040") for k in (1, 2))
    card = ModelCard(
        name="trivial",
        groups=(bands,),
        window=WindowRule(size=2048, multiple=16),
        trim=16,
        feather=16,
        legend=Legend(name="trivial", nodata=0, classes=classes),
    )
    write_torchscript(torch.jit.script(Trivial().eval()), card, path)
    return path


def main() -> None:
    """Print tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=16_384)
    parser.add_argument("--cores", type=int, default=16)
    parser.add_argument("--forward", type=float, default=1e9, help="pixels a second of the network")
    given = parser.parse_args()
    tune_allocator()
    clock = Clock()
    sending = Sending()
    for owner, method in (
        (rows.RowMaker, "_valid"), (rows.RowMaker, "_votes_on"), (rows, "on_output"), (sending, "upload"),
    ):  # fmt: skip
        clock.time(owner, method, PREPARING)
    transfer.HostTransfer.upload = lambda _, values: sending.upload(values)  # type: ignore[method-assign]
    clock.time(canvas.Canvas, "put", PUTTING)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, scene = write_trivial(folder / "trivial.pt"), write_repeated(folder, given.size, 3)
        engine = EngineOptions(precision="fp32", form="torchscript", window=2048, block=(2048, given.size))
        with clock.threads():
            map_scene(MapRequest(Imagery((str(scene),)), folder / "map", str(model), engine=engine))
    city = f"{CITY} x {CITY} px on {given.cores} cores, s"
    print(f"| {given.size} x {given.size} px | processor ns a pixel | {city} |")
    print("|---|--:|--:|")
    bounds = {f"the network, {given.forward / 1e9:g} Gpx/s": CITY**2 / given.forward}
    for what, seconds in clock.seconds.items():
        pixel = seconds / given.size**2
        bounds[what] = pixel * CITY**2 / (given.cores if what in POOLS.values() else 1)
        print(f"| {what} | {pixel * 1e9:.2f} | {bounds[what]:.1f} |")
    longest = max(bounds, key=lambda what: bounds[what])
    network = next(iter(bounds.values()))
    print(f"\n{longest} bounds: {bounds[longest]:.1f} s; the network takes {network:.1f} s")


if __name__ == "__main__":
    main()
