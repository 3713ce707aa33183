"""The trained built-in models, made again: `python -m citycover_models.builtin.urban --data DIR`.

Light networks (L2HNet, 16 channels) for cities at about 1 m, from red, green, blue and, in one of them, near
infrared. They learn five classes (`landcover5`) from practice cities of many seeds, whose truth is known, and
from public-domain NAIP scenes, whose labels are what the built-in spectral rules make of them. Then both are
measured on practice cities that they have not seen, and the figures are written into their cards.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from pathlib import Path

import rasterio

from citycover.classes.legend import read_legend
from citycover.classes.table import table_between
from citycover.evaluate.confusion import Confusion
from citycover.evaluate.rasters import compare_rasters
from citycover.job.request import Imagery, MapRequest, ProductOptions
from citycover.model.archive import read_model_file
from citycover.model.builtin import FOLDER
from citycover.model.network import load_torchscript, write_torchscript
from citycover.run.map import map_scene
from citycover.synth.write import write_city
from citycover_models.data.pairs import ImageAndLabels
from citycover_models.data.prepare import TrainingSet, prepare_training_set
from citycover_models.training.recipe import read_recipe
from citycover_models.training.request import TrainRequest
from citycover_models.training.start import train

logger = logging.getLogger(__name__)

LEARNED = range(10, 18)
"""Seeds of the practice cities that are learned from."""

UNSEEN = (200, 201, 202)
"""Seeds of those that the models are measured on."""

SIDE = 1024

BANDS = {"urban-rgbn-1m": ("red", "green", "blue", "nir"), "urban-rgb-1m": ("red", "green", "blue")}


def make(folder: Path, data: Path | None, work: Path) -> None:
    """Train and measure both models, and put their files into a folder.

    Args:
        folder: for the two `.pt` files.
        data: real imagery, with `vhr/naip_small` and `vhr/naip_va` in it; None: practice cities alone.
        work: for what is made on the way.
    """
    cities = {seed: _city(work, seed) for seed in (*LEARNED, *UNSEEN)}
    items = [_with_truth(cities[seed]) for seed in LEARNED]
    aerial = [_labelled(scene, work) for scene in _naip(data, work)] if data else []
    for name, bands in BANDS.items():
        training_set = _join(
            prepare_training_set(items, ["city"], "landcover5", seen=Imagery((), bands)),
            prepare_training_set(aerial, ["landcover5"], None, seen=Imagery((), bands)) if aerial else None,
        )
        trained = train(TrainRequest(training_set, read_recipe("urban"), work / name, overwrite=True))
        model = read_model_file(trained.model)
        said = _accuracy(trained.model, [cities[s] for s in UNSEEN], bands, work)
        card = model.card.model_copy(
            update={"name": name, "training": f"{model.card.training}. {said}", "gsd": (0.5, 2.0)}
        )
        write_torchscript(load_torchscript(trained.model, "cpu"), card, folder / f"{name}.pt")
        logger.warning("%s: %s", name, said)


def _city(work: Path, seed: int) -> Path:
    place = work / f"city-{seed}"
    if not (place / "truth.tif").is_file():
        write_city(place, SIDE, seed, overwrite=True)
    return place


def _with_truth(city: Path) -> ImageAndLabels:
    return ImageAndLabels(str(city / "image.tif"), (str(city / "truth.tif"),))


def _naip(data: Path, work: Path) -> list[Path]:
    """NAIP scenes of 0.6 and 1 m; one comes as a file a band."""
    scenes = sorted((data / "vhr" / "naip_small").glob("m_*.tif"))
    files = sorted((data / "vhr" / "naip_va").glob("NAIP-VA-b[1-4].tiff"))
    if files:
        stack = work / "naip-va.tif"
        with rasterio.open(files[0]) as first:
            profile = first.profile | {"count": 4, "nodata": None, "driver": "GTiff"}
        with rasterio.open(stack, "w", **profile) as sink:
            for index, (file, name) in enumerate(zip(files, BANDS["urban-rgbn-1m"], strict=True), start=1):
                with rasterio.open(file) as source:
                    sink.write(source.read(1), index)
                sink.set_band_description(index, name)
        scenes.append(stack)
    return scenes


def _labelled(scene: Path, work: Path) -> ImageAndLabels:
    """A scene with what the spectral rules make of it."""
    out = work / f"spectral-{scene.stem}"
    numbers = ("1", "2", "3", "4")
    replaced = ProductOptions(overwrite=True)
    map_scene(MapRequest(Imagery((str(scene),), numbers), out, "spectral-rgbn", product=replaced))
    return ImageAndLabels(str(scene), (str(out / "landcover.tif"),))


def _join(one: TrainingSet, two: TrainingSet | None) -> TrainingSet:
    if two is None:
        return one
    gsd = (min(one.gsd[0], two.gsd[0]), max(one.gsd[1], two.gsd[1]))
    return TrainingSet(one.pairs + two.pairs, one.legend, one.group, gsd)


def _accuracy(model: Path, cities: list[Path], bands: tuple[str, ...], work: Path) -> str:
    legend = read_legend("landcover5")
    total = Confusion.empty(len(legend.ids))
    for city in cities:
        out = work / "measured"
        image = str(city / "image.tif")
        map_scene(
            MapRequest(Imagery((image,), bands), out, str(model), product=ProductOptions(overwrite=True))
        )
        table = table_between(read_legend("city"), legend)
        total += compare_rasters(out / "landcover.tif", city / "truth.tif", legend, None, table)
    classes = ", ".join(f"{n} {100 * v:.0f}" for n, v in zip(legend.names, total.iou, strict=True))
    return (
        f"On {len(cities)} practice cities that it has not seen: mean IoU {100 * total.miou:.1f} %, overall "
        f"accuracy {100 * total.overall_accuracy:.1f} % (IoU of {classes}). docs/accuracy.md has what it "
        "does on real imagery: practice cities are no substitute"
    )


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of real imagery")
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--work", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = given.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        make(given.out, given.data, work)


if __name__ == "__main__":
    main()
