"""What all layers on request cost: the wall of a map with them against one without, by turns.

    python tests/benchmarks/layers_cost.py --size 8192 --runs 3

The U-Net of the benchmark; every run is a process of its own. Within a round both kinds run once, and which
one begins changes from round to round. The median of the rounds' ratios is printed; 1.25 is the aim.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent

LAYERS = "probabilities,entropy,second,margin"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "citycover-bench")
    given = parser.parse_args()
    sys.path.insert(0, str(HERE))
    from forward_share import in_a_process
    from material import write_network, write_scene

    from citycover.model.archive import read_model_file

    given.folder.mkdir(parents=True, exist_ok=True)
    model = given.folder / "unet.pt"
    write_network("unet", model)
    bands = len(read_model_file(model).card.groups[0].bands)
    scene = write_scene(given.folder, given.size, bands)
    ratios = []
    for turn in range(given.runs):
        walls = {}
        for layers in ("", LAYERS) if turn % 2 == 0 else (LAYERS, ""):
            walls[layers] = in_a_process("map", str(scene), str(model), "fp32", layers)["wall_s"]
        ratios.append(walls[LAYERS] / walls[""])
        print(f"{walls['']:.1f} s without, {walls[LAYERS]:.1f} s with them: {ratios[-1]:.3f}", flush=True)
    print(f"median of {given.runs} at {given.size} x {given.size}: {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
