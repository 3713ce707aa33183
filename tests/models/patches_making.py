"""BigEarthNet folders for tests: made of real patches where they are at hand, or drawn from a seed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin

from citycover_models.data.patches import GROUPS, SIDES

BANDS = {band: side for group, side in zip(GROUPS, SIDES, strict=True) for band in group}
"""Every band and its pixels."""

V1 = "S2A_MSIL2A_20170613T101031"

V2 = "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP"


def drawn_bands(seed: int, level: float = 0.0) -> dict[str, NDArray[np.uint16]]:
    """Noise about a level, so that patches of other levels can be told apart."""
    rng = np.random.default_rng(seed)
    return {
        band: (1000 + 300 * level + rng.integers(0, 200, (side, side))).astype(np.uint16)
        for band, side in BANDS.items()
    }


def write_bands(folder: Path, bands: Mapping[str, NDArray[Any]]) -> None:
    """One GeoTIFF a band, named by the folder."""
    folder.mkdir(parents=True)
    for band, pixels in bands.items():
        side = pixels.shape[0]
        transform = from_origin(500_000, 5_000_000, 1200 / side, 1200 / side)
        profile = {"driver": "GTiff", "width": side, "height": side, "count": 1, "dtype": pixels.dtype}
        place = {"crs": "EPSG:32633", "transform": transform}
        with rasterio.open(folder / f"{folder.name}_{band}.tif", "w", **profile, **place) as sink:
            sink.write(pixels, 1)


def write_v1(folder: Path, labels: Mapping[str, Sequence[str]], tile: str = "T33UUP") -> None:
    """Patches by name with labels of 43, and no split files."""
    for seed, (name, own) in enumerate(labels.items()):
        write_bands(folder / name, drawn_bands(seed, len(own)))
        facts = {"labels": list(own), "tile_source": f"S2A_MSIL1C_20170613T101031_N0205_R022_{tile}_x.SAFE"}
        (folder / name / f"{name}_labels_metadata.json").write_text(json.dumps(facts))


def write_v2(
    folder: Path, rows: Sequence[Mapping[str, Any]], codes: Mapping[str, NDArray[np.uint16]] | None = None
) -> None:
    """Patches of metadata rows, bands brighter for labels of higher number; reference maps of `codes`."""
    from citycover.classes.legend import read_legend

    names = read_legend("bigearthnet19").names
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metadata.json").write_text(json.dumps(list(rows)))
    for seed, row in enumerate(rows):
        name = row["patch_id"]
        scene = name.rsplit("_", 2)[0]
        level = float(np.mean([names.index(label) for label in row["labels"]] or [0]))
        write_bands(folder / "BigEarthNet-S2" / scene / name, drawn_bands(seed, level))
        if codes is not None:
            write_bands(folder / "Reference_Maps" / scene / name, {"reference_map": codes[name]})


def v2_rows(
    count: int, regions: Sequence[str] = ("Austria",), split: str | None = None
) -> list[dict[str, Any]]:
    """Rows of patches: water or forest by turns; two of three are trained on, unless `split` says."""
    splits = ("train", "train", "validation", "train", "train", "test")
    labels = (["Inland waters"], ["Coniferous forest", "Mixed forest"])
    return [
        {"patch_id": f"{V2}_{n // 10:02d}_{n % 10:02d}", "labels": labels[n % 2],
         "split": split or splits[n % 6], "country": regions[n % len(regions)]}
        for n in range(count)
    ]  # fmt: skip
