"""Peak resident memory does not depend on the size of the scene.

    python tests/benchmarks/memory.py --sizes 8192 40000

Maps a four-band synthetic scene of each size with the cheap network, each in a process of its own, and
prints the peak of each and the ratio of the last to the first.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[8192, 40_000])
    parser.add_argument("--network", choices=("unet", "cheap"), default="cheap")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "citycover-bench")
    given = parser.parse_args()
    from forward_share import in_a_process
    from material import write_network, write_scene

    given.folder.mkdir(parents=True, exist_ok=True)
    model = str(write_network(given.network, given.folder / f"{given.network}.pt"))
    peaks = []
    print("| scene | peak resident memory | wall | unique Mpx/s |\n|---|---|---|---|")
    for size in given.sizes:
        scene = str(write_scene(given.folder, size))
        run = in_a_process("map", scene, model, "fp32", "")
        peaks.append(run["peak_rss_bytes"])
        speed = run["pixels"] / 1e6 / run["wall_s"]
        print(
            f"| {size} x {size} | {peaks[-1] / 2**20:.0f} MiB | {run['wall_s']:.0f} s | {speed:.1f} |",
            flush=True,
        )
    print(f"ratio of the last to the first: {peaks[-1] / peaks[0]:.3f}")


if __name__ == "__main__":
    main()
