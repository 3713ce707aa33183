"""Band fusion measured: three fusions on real and practice patches, and from region to region.

    python tests/benchmarks/ben.py                     all cells that are missing: minutes on one core
    python tests/benchmarks/ben.py --only fusions      or transfer, real

Practice patches are cut from Sentinel-2 imagery of practice cities, labelled by the shares of their truth. A
practice region is a quarter of them, by how much of a patch is built: regions differ in their labels, as
those of a continent do. It trains in some cities and is tested in others. Cells that are done are kept in a
file of JSON lines; the tables are made of whatever is there, means over seeds.
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
from citycover_models.data.patches import hot_labels
from citycover_models.data.shards import PatchReader
from citycover_models.training.recipe import read_recipe
from citycover_models.training.request import Trained, TrainRequest
from citycover_models.training.start import train

DOC = Path(__file__).parents[2] / "docs" / "methods" / "band-fusion.md"
KEPT = Path(__file__).parents[2] / "docs" / "methods" / "band-fusion.jsonl"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"

MODES = ("early", "intermediate", "late")

REGIONS = ("open", "green", "mixed", "built")
"""Quarters of the patches, from the least built ones on."""

FARTHEST = ("open", "built"), ("built", "open")
"""Where the target's own labels are given, too: some of them, or all."""

CITIES = {"train": (200, 202, 204), "test": (201, 203, 205)}
"""Seeds."""

_SIDE, _STEP, _PATCH = 3600, 400, 1200
"""Metres of a city, from patch to patch, and of a patch: 7 x 7 patches that overlap."""

LABELS = {1: (17, 0.01), 2: (10, 0.15), 3: (4, 0.35), 4: (2, 0.15), 5: (0, 0.10), 6: (1, 0.20)}
"""Class of the practice truth -> rank of a label, and from which share of a patch on it is given."""

V2 = "S2A_MSIL2A_20240615T101031_N0000_R022_T{tile}_{col:02d}_{row:02d}"


def write_practice(folder: Path) -> None:
    """A BigEarthNet v2 folder of all practice regions."""
    names, rows = read_legend("bigearthnet19").names, []
    for split, seeds in CITIES.items():
        made = [patch for seed in seeds for patch in _city_patches(seed)]
        order = np.argsort([(part == 1).mean() + (part == 2).mean() for part, _ in made], kind="stable")
        for rank, number in enumerate(order):
            part, bands = made[number]
            name = V2.format(tile=f"00{split[1].upper()}AA", col=number // 50, row=number % 50)
            labels = [names[r] for c, (r, least) in LABELS.items() if (part == c).mean() >= least]
            region = REGIONS[rank * len(REGIONS) // len(order)]
            rows.append({"patch_id": name, "labels": labels, "split": split, "country": region})
            save_file(bands, folder / f"{name}.safetensors")
    (folder / "metadata.json").write_text(json.dumps(rows))


def _city_patches(seed: int) -> list[tuple[NDArray[np.uint8], dict[str, NDArray[np.uint16]]]]:
    """Truth and bands of each patch."""
    window = Window(0, 0, _SIDE, _SIDE)
    bands, truth = sentinel2_window(seed, window), city_ground(seed, window).truth
    places = range(0, _SIDE - _PATCH + 1, _STEP)
    return [
        (
            truth[y : y + _PATCH, x : x + _PATCH],
            {b: np.ascontiguousarray(_cut(plane, y, x, S2_GSD[b])) for b, plane in bands.items()},
        )
        for y, x in product(places, places)
    ]


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


TRANSFER = ["network=band-fusion-intermediate-resnet18"]


def transfer_cells(folder: Path, source: str, epochs: int, seed: int) -> list[dict[str, Any]]:
    """Train on one region, test on all of them, by the model file that a user would have.

    From the farthest regions go on with labels of the target: the head alone or all of the network, with a
    quarter of its patches or all.
    """
    changes = [*TRANSFER, f"epochs={epochs}"]
    with tempfile.TemporaryDirectory() as place:
        out = Path(place)
        learned = _learned(folder, source, 1.0, changes, seed, out / source)
        rows = [_transfer(learned.model, folder, source, target, epochs, seed) for target in REGIONS]
        for target in (other for first, other in FARTHEST if first == source):
            for learn, share in product(("head", "all"), (0.25, 1.0)):
                own = _learned(
                    folder, target, share, [*changes, f"learn={learn}"], seed, out / f"{learn}-{share}",
                    learned.folder / "weights.safetensors",
                )  # fmt: skip
                row = _transfer(own.model, folder, source, target, epochs, seed)
                rows.append(row | {"learn": learn, "share": share})
    return rows


def _learned(
    folder: Path, region: str, share: float, changes: list[str], seed: int, out: Path,
    weights: Path | None = None,
) -> Trained:  # fmt: skip
    patches = prepare_patches(folder, regions=[region], share=share, seed=seed)
    recipe = read_recipe("band-fusion-light", changes)
    return train(TrainRequest(patches, recipe, out, seed=seed, workers=0, measure=False, weights=weights))


def _transfer(model: Path, folder: Path, source: str, target: str, epochs: int, seed: int) -> dict[str, Any]:
    assert read_model_file(model).card.task == "labels"
    network = torch.jit.load(str(model)).eval()  # type: ignore[no-untyped-call]
    everything = read_bigearthnet(folder).patches
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
    fusions = [r for r in rows if r["kind"] == "fusion" and not r["seed"]]
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
    plain = [r for r in moves if "learn" not in r]
    seeds = sorted({r["seed"] for r in plain})
    heads = ("trained on", "tested on", "chi-square distance", "micro F2", "loss", "micro AP", "loss")
    lines = [f"Means of {len(seeds)} seeds.", "", _line(*heads), "|---" * len(heads) + "|"]
    losses: list[tuple[float, float, float]] = []
    for source, target in product(REGIONS, REGIONS):
        distance, f2, ap = _means(plain, source, target)
        shown = ["", ""]
        if source != target:
            _, home_f2, home_ap = _means(plain, target, target)
            losses.append((distance, home_f2 - f2, home_ap - ap))
            shown = [_percent(home_f2 - f2), _percent(home_ap - ap)]
        lines.append(_line(source, target, f"{distance:.3f}", _percent(f2), shown[0], _percent(ap), shown[1]))
    distances, f2s, aps = zip(*losses, strict=True)
    by_f2, by_ap = (spearmanr(distances, loss).statistic for loss in (f2s, aps))
    moves_ = f"Spearman correlation of distance and loss over {len(losses)} moves"
    lines += ["", f"{moves_}: {by_f2:+.2f} (F2), {by_ap:+.2f} (AP).", "", *_with_labels(moves)]
    return lines


def _with_labels(moves: list[dict[str, Any]]) -> list[str]:
    heads = ("trained on", "then on", "which layers", "patches of it", "micro F2", "micro AP")
    lines = [_line(*heads), "|---" * len(heads) + "|"]
    for source, target in FARTHEST:
        for start, learn, share in (
            (source, None, 0.0), *((source, *how) for how in product(("head", "all"), (0.25, 1.0))),
            (target, None, 1.0),
        ):  # fmt: skip
            some = [r for r in moves if (r.get("learn"), r.get("share", share)) == (learn, share)]
            _, f2, ap = _means(some, start, target)
            how = {None: "", "head": "the head", "all": "all"}[learn]
            then = target if learn else ""
            lines.append(_line(start, then, how, f"{share:.0%}", _percent(f2), _percent(ap)))
    return lines


def _means(rows: list[dict[str, Any]], source: str, target: str) -> tuple[float, float, float]:
    """Distance, micro F2 and micro AP over seeds."""
    own = [r for r in rows if (r["source"], r["target"]) == (source, target)]
    distance, f2, ap = (float(np.mean([r[key] for r in own])) for key in ("distance", "micro_f2", "micro_ap"))
    return distance, f2, ap


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
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "citycover-band-fusion")
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
    practice = options.work / "practice"
    if options.only in {None, "transfer", "fusions"} and not (practice / "metadata.json").is_file():
        practice.mkdir(parents=True, exist_ok=True)
        write_practice(practice)
    with tempfile.TemporaryDirectory() as scratch:
        real = Path(scratch)
        if options.only in {None, "transfer"}:
            for source in REGIONS:
                if not any(
                    (r.get("source"), r["seed"]) == (source, options.seed) for r in _kept(options.kept)
                ):
                    for row in transfer_cells(practice, source, options.epochs, options.seed):
                        _keep(options.kept, row)
        if data and options.only in {None, "real"}:
            write_real(real, Path(data) / "s2" / "bigearthnet" / "v1")
        cases = [("practice", practice)] if options.only in {None, "fusions"} else []
        cases += [("real v1", real)] if data and options.only in {None, "real"} else []
        for (case, folder), mode in product(cases, MODES):
            done = {(r.get("case"), r.get("mode"), r["seed"]) for r in _kept(options.kept)}
            if (case, mode, options.seed) not in done:
                _keep(options.kept, fusion_cell(folder, case, mode, options.epochs, options.seed))


def _kept(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def _keep(path: Path, row: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
