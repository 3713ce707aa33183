"""Band fusion measured: three fusions on real and practice patches, and from region to region.

    python tests/benchmarks/ben.py                     all cells that are missing: minutes on one core
    python tests/benchmarks/ben.py --only fusions      or transfer, real

Practice patches are cut from Sentinel-2 imagery of practice cities, labelled by the shares of their truth. A
practice region is a place in the layout of the cities: a town's centre, its edge, or the land between towns.
It trains in one city and is tested in another. Cells that are done are kept in a file of JSON lines; the
tables are made of whatever is there.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from scipy.stats import spearmanr
from table import between

from citycover.classes.legend import read_legend
from citycover.evaluate.multilabel import label_distance, score_labels
from citycover.geometry.window import Window
from citycover.model.archive import read_model_file
from citycover.synth.city import city_ground
from citycover.synth.sensors import S2_GSD, S2_OFFSET, sentinel2_window
from citycover_models.catalogue.registry import find_preset
from citycover_models.data.bigearthnet import read_bigearthnet, split_of
from citycover_models.data.patch_batches import PatchSource
from citycover_models.data.patch_set import prepare_patches
from citycover_models.data.patches import Patch, hot_labels
from citycover_models.data.shards import PatchReader
from citycover_models.training.recipe import read_recipe
from citycover_models.training.request import TrainRequest
from citycover_models.training.start import train

DOC = Path(__file__).parents[2] / "docs" / "methods" / "band-fusion.md"
KEPT = Path(__file__).parents[2] / "docs" / "methods" / "band-fusion.jsonl"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"

MODES = ("early", "intermediate", "late")

REGIONS = {"centre": (0, 0), "edge": (1200, 0), "between": (1260, 1260)}
"""First row and column, metres, of each region in every practice city."""

CITIES = {"train": 200, "test": 201}
"""Seeds."""

_SIDE, _STEP, _PATCH = 2400, 300, 1200
"""Metres of a region, from patch to patch, and of a patch: 5 x 5 patches that overlap."""

LABELS = {1: (17, 0.01), 2: (10, 0.15), 3: (4, 0.35), 4: (2, 0.15), 5: (0, 0.10), 6: (1, 0.20)}
"""Class of the practice truth -> rank of a label, and from which share of a patch on it is given."""

V2 = "S2A_MSIL2A_20240615T101031_N0000_R022_T{tile}_{col:02d}_{row:02d}"


def write_practice(folder: Path) -> None:
    """A BigEarthNet v2 folder of all practice regions."""
    names, rows = read_legend("bigearthnet19").names, []
    for number, (region, (top, left)) in enumerate(REGIONS.items()):
        for split, seed in CITIES.items():
            window = Window(top, left, _SIDE, _SIDE)
            bands, truth = sentinel2_window(seed, window), city_ground(seed, window).truth
            places = range(0, _SIDE - _PATCH + 1, _STEP)
            for y, x in product(places, places):
                tile = f"{number:02d}{'ABC'[list(CITIES).index(split)]}AA"
                name = V2.format(tile=tile, col=x // _STEP, row=y // _STEP)
                part = truth[y : y + _PATCH, x : x + _PATCH]
                labels = [names[r] for c, (r, least) in LABELS.items() if (part == c).mean() >= least]
                rows.append({"patch_id": name, "labels": labels, "split": split, "country": region})
                cut = {b: np.ascontiguousarray(_cut(plane, y, x, S2_GSD[b])) for b, plane in bands.items()}
                save_file(cut, folder / f"{name}.safetensors")
    (folder / "metadata.json").write_text(json.dumps(rows))


def _cut(plane: NDArray[np.uint16], y: int, x: int, gsd: int) -> NDArray[np.uint16]:
    """A patch of one band, without the offset that BigEarthNet does not have."""
    part = plane[y // gsd : (y + _PATCH) // gsd, x // gsd : (x + _PATCH) // gsd]
    return part - np.uint16(S2_OFFSET)


def write_real(folder: Path, data: Path) -> None:
    """The 30 real patches of v1, as a folder of v2's form: labels of 19, splits by squares."""
    known = json.loads((data / "labels.json").read_text())
    rows = []
    for number, (name, own) in enumerate(sorted(known.items())):
        with np.load(data / f"{name}.npz") as archive:
            bands = {band: archive[band] for band in S2_GSD}
        new = V2.format(tile="99AAA", col=number // 10, row=number % 10)
        save_file(bands, folder / f"{new}.safetensors")
        split = split_of(name)
        rows.append({"patch_id": new, "labels": own["labels19"], "split": split, "country": "all"})
    (folder / "metadata.json").write_text(json.dumps(rows))


def fusion_cell(folder: Path, case: str, mode: str, epochs: int, seed: int) -> dict[str, Any]:
    """One fusion on one set of patches."""
    network = f"band-fusion-{mode}-resnet18"
    patches = prepare_patches(folder)
    with tempfile.TemporaryDirectory() as out:
        recipe = read_recipe("band-fusion-light", [f"network={network}", f"epochs={epochs}"])
        request = TrainRequest(patches, recipe, Path(out) / "run", seed=seed, workers=0, measure=False)
        begin, cpu = time.perf_counter(), time.process_time()
        trained = train(request)
        seconds = {"wall_s": time.perf_counter() - begin, "cpu_s": time.process_time() - cpu}
    network_ = find_preset(network).build()
    always = hot_labels(patches.train, 19).mean(0)[None].repeat(len(patches.test), 0)
    baseline = score_labels(always, hot_labels(patches.test, 19)).facts()
    return {
        "kind": "fusion", "case": case, "mode": mode, "network": network, "epochs": epochs, "seed": seed,
        "train": len(patches.train), "parameters": sum(p.numel() for p in network_.parameters()),
        **{k: round(v, 1) for k, v in seconds.items()},
        **{k: v for k, v in trained.test.items() if k != "classes"},
        "frequencies": {k: baseline[k] for k in ("macro_ap", "micro_ap", "micro_f2", "ranking_loss")},
    }  # fmt: skip


def transfer_cells(folder: Path, source: str, epochs: int, seed: int) -> list[dict[str, Any]]:
    """Train on one region, test on all of them, by the model file that a user would have."""
    patches = prepare_patches(folder, regions=[source])
    everything = read_bigearthnet(folder).patches
    with tempfile.TemporaryDirectory() as out:
        changes = ["network=band-fusion-intermediate-resnet18", f"epochs={epochs}"]
        recipe = read_recipe("band-fusion-light", changes)
        trained = train(TrainRequest(patches, recipe, Path(out) / "run", seed=seed, workers=0, measure=False))
        network = torch.jit.load(str(trained.model)).eval()  # type: ignore[no-untyped-call]
        assert read_model_file(trained.model).card.task == "labels"
        return [_transfer(network, everything, source, target, epochs, seed) for target in REGIONS]


def _transfer(
    network: Any, everything: tuple[Patch, ...], source: str, target: str, epochs: int, seed: int
) -> dict[str, Any]:
    test = tuple(p for p in everything if p.region == target and p.split == "test")
    learned = tuple(p for p in everything if p.region == source and p.split == "train")
    reader = PatchSource(test, read_legend("bigearthnet19"), PatchReader(test), references=False, seed=0)
    with torch.inference_mode():
        scores = [network(*batch.groups)[:, :, 0, 0].sigmoid().numpy() for batch in reader.once(8)]
    truth = hot_labels(test, 19)
    found = score_labels(np.concatenate(scores), truth).facts()
    keys = ("micro_f2", "macro_f2", "macro_ap", "micro_ap", "ranking_loss", "hamming_loss")
    distance = label_distance(hot_labels(learned, 19), truth)
    return {"kind": "transfer", "source": source, "target": target, "epochs": epochs, "seed": seed,
            "train": len(learned), "patches": len(test), "distance": round(distance, 4),
            **{key: found[key] for key in keys}}  # fmt: skip


def tables(rows: list[dict[str, Any]]) -> str:
    """What is kept, as Markdown."""
    fusions = [r for r in rows if r["kind"] == "fusion"]
    figures = ("mAP", "micro AP", "micro F2", "macro F2", "ranking loss", "coverage")
    heads = (
        "patches",
        "fusion (ResNet-18)",
        "parameters",
        "trained on / tested on",
        "epochs",
        "CPU s",
        *figures,
    )
    lines = [_line(*heads), "|---" * len(heads) + "|"]
    for r in fusions:
        shown = [_percent(r[key]) for key in ("macro_ap", "micro_ap", "micro_f2", "macro_f2")]
        seen = f"{r['train']} / {r['patches']}"
        head = (r["case"], r["mode"], f"{r['parameters']:,}", seen, str(r["epochs"]), f"{r['cpu_s']:.0f}")
        lines.append(_line(*head, *shown, f"{r['ranking_loss']:.3f}", f"{r['coverage']:.1f}"))
    for case in dict.fromkeys(r["case"] for r in fusions):
        row = next(r for r in fusions if r["case"] == case)
        known = row["frequencies"]
        shown = [_percent(known[key]) for key in ("macro_ap", "micro_ap", "micro_f2")]
        head = (
            case,
            "label frequencies of training alone",
            "0",
            f"{row['train']} / {row['patches']}",
            "",
            "",
        )
        lines.append(_line(*head, *shown, "", f"{known['ranking_loss']:.3f}", ""))
    moves = [r for r in rows if r["kind"] == "transfer"]
    if moves:
        lines += ["", *_transfers(moves)]
    return "\n".join(lines)


def _transfers(moves: list[dict[str, Any]]) -> list[str]:
    home = {r["target"]: r for r in moves if r["source"] == r["target"]}
    heads = ("trained on", "tested on", "chi-square distance", "micro F2", "loss", "micro AP", "loss")
    lines = [_line(*heads), "|---" * len(heads) + "|"]
    losses: list[tuple[float, float, float]] = []
    for r in moves:
        own = home.get(r["target"])
        shown = ["", ""]
        if own is not None and own is not r:
            f2, ap = own["micro_f2"] - r["micro_f2"], own["micro_ap"] - r["micro_ap"]
            losses.append((r["distance"], f2, ap))
            shown = [_percent(f2), _percent(ap)]
        places = (r["source"], r["target"], f"{r['distance']:.3f}")
        lines.append(_line(*places, _percent(r["micro_f2"]), shown[0], _percent(r["micro_ap"]), shown[1]))
    if len(losses) > 2:
        distance, f2s, aps = zip(*losses, strict=True)
        by_f2, by_ap = (spearmanr(distance, loss).statistic for loss in (f2s, aps))
        moves_ = f"Spearman correlation of distance and loss over {len(losses)} moves"
        lines += ["", f"{moves_}: {by_f2:+.2f} (F2), {by_ap:+.2f} (AP)."]
    return lines


def _line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def main() -> None:
    """Measure what is missing, and write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=("fusions", "real", "transfer"))
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kept", type=Path, default=KEPT)
    parser.add_argument("--tables", action="store_true", help="make the tables from what is kept, and stop")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not options.tables:
        _measure(options)
    rows = _kept(options.kept)
    if options.kept == KEPT:
        DOC.write_text(between(DOC.read_text(encoding="utf-8"), BEGIN, END, tables(rows)), encoding="utf-8")


def _measure(options: argparse.Namespace) -> None:
    data = os.environ.get("CITYCOVER_DATA")
    with tempfile.TemporaryDirectory() as scratch:
        practice, real = Path(scratch) / "practice", Path(scratch) / "real"
        practice.mkdir()
        real.mkdir()
        if options.only in {None, "transfer", "fusions"}:
            write_practice(practice)
        if options.only in {None, "transfer"}:
            for source in REGIONS:
                if not any(r.get("source") == source for r in _kept(options.kept)):
                    for row in transfer_cells(practice, source, options.epochs, options.seed):
                        _keep(options.kept, row)
        if data and options.only in {None, "real"}:
            write_real(real, Path(data) / "s2" / "bigearthnet" / "v1")
        cases = [("practice", practice)] if options.only in {None, "fusions"} else []
        cases += [("real v1", real)] if data and options.only in {None, "real"} else []
        for (case, folder), mode in product(cases, MODES):
            if not any((r.get("case"), r.get("mode")) == (case, mode) for r in _kept(options.kept)):
                _keep(options.kept, fusion_cell(folder, case, mode, options.epochs, options.seed))


def _kept(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def _keep(path: Path, row: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
