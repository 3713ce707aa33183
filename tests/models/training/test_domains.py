"""Two domains in the one loop: what it leaves, going on, both formats, a map of several blocks, bad input."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from disk import Tree, left_by
from rasterio.transform import Affine
from safetensors.torch import load_file
from training_sets import make_city, small_recipe

from citycover.errors import ConfigError, SceneError, StoppedError
from citycover.job.request import EngineOptions, Imagery, MapRequest
from citycover.model.archive import read_model_file
from citycover.run.map import map_scene
from citycover_models.catalogue.registry import find_preset
from citycover_models.data.batches import LabelledBatch
from citycover_models.data.chips import as_planes
from citycover_models.data.labels import IGNORE
from citycover_models.data.pairs import ImageAndLabels
from citycover_models.data.prepare import TrainingSet, prepare_training_set
from citycover_models.data.prepare_targets import prepare_targets
from citycover_models.data.sampling import rare_class_odds
from citycover_models.export.write import ExportReport
from citycover_models.imagery.aerial import IMAGENET_RGB
from citycover_models.training.domains import DomainsMaterial
from citycover_models.training.recipe import read_recipe
from citycover_models.training.request import TrainRequest, TrainWatch
from citycover_models.training.setup import build_network
from citycover_models.training.start import train
from citycover_models.training.target_labels import steadiness_before


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_city(tmp_path_factory.mktemp("city"), size=160)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory, city: Path) -> Path:
    """The same place, darker, in pixels twice as large: another sensor."""
    with rasterio.open(city / "image.tif") as source:
        pixels, profile, names = source.read(), dict(source.profile), source.descriptions
    coarse = pixels[:, :160, :160].reshape(4, 80, 2, 80, 2).mean((2, 4)) * 0.5
    return write(tmp_path_factory.mktemp("other") / "b.tif", coarse.astype(np.uint8), profile, names, 2.0)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is measured of a finished network is measured on few chips."""
    from citycover_models.export import write as export
    from citycover_models.training import judging, knowledge

    monkeypatch.setattr(export, "probe_sides", lambda card: (2 * card.window.multiple,))
    monkeypatch.setattr(knowledge, "_CHIPS", 3)
    monkeypatch.setattr(judging, "_CHIPS", 3)


@pytest.fixture
def unwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model file: the weights are what is looked at."""
    from citycover_models.training import finish

    report = ExportReport(Path(), find_preset("semantic-fpn-resnet18").card(), "", "torchscript", (), 0.0)
    monkeypatch.setattr(finish, "export_torchscript", lambda *_, **_named: report)


def write(path: Path, pixels: np.ndarray, profile: dict[str, Any], names: Any, gsd: float) -> Path:
    place = profile["transform"]
    here = Affine(gsd, 0, place.c, 0, -gsd, place.f)
    height, width = pixels.shape[1:]
    given = profile | {"height": height, "width": width, "count": len(pixels), "transform": here}
    given |= {"dtype": str(pixels.dtype), "blockxsize": 64, "blockysize": 64}
    with rasterio.open(path, "w", **given) as sink:
        sink.write(pixels)
        sink.descriptions = names
    return path


def domains(city: Path, *targets: ImageAndLabels, **changes: Any) -> TrainingSet:
    source = ImageAndLabels(str(city / "image.tif"), (str(city / "truth.tif"),))
    return prepare_targets(prepare_training_set([source], ["city"], None), targets, ["city"], **changes)


LOVECS = {
    "network": "semantic-fpn-resnet18",
    "method": {"name": "lovecs", "warm_up": 0.34, "relabel": 0.4, "portion": 0.5, "scales": [1.0, 2.0]},
    "chip": 32,
    "epochs": 2,
    "chips_per_epoch": 6,
    "ema": None,
}


def request(
    city: Path, other: Path, out: Path, recipe: dict[str, Any], labels: Path | None = None, **changes: Any
) -> TrainRequest:
    target = ImageAndLabels(str(other), (str(labels),) if labels else ())
    given = {"workers": 0, "measure": False} | changes
    return TrainRequest(domains(city, target), small_recipe(**recipe), out, **given)


def stopping(monkeypatch: pytest.MonkeyPatch, step: int) -> TrainWatch:
    """A watch that stops a training after a step."""
    from citycover_models.training import loop as module

    watch, note = TrainWatch(), module.Run._note

    def noting(self: Any, *arguments: Any, **named: Any) -> None:
        note(self, *arguments, **named)
        if self.state.step == step:
            watch.stop.set()

    monkeypatch.setattr(module.Run, "_note", noting)
    return watch


def test_lovecs_labels_the_target_adapts_and_maps_it(city: Path, other: Path, tmp_path: Path) -> None:
    trained = train(request(city, other, tmp_path / "run", LOVECS, labels=city / "truth.tif"))
    card = read_model_file(trained.model).card
    assert card.native_gsd == pytest.approx(2.0, rel=1e-3), "of the target, which is what it maps"
    assert card.activation == "probabilities" and "adapted to 1 target" in card.training
    assert 0 <= trained.test["target_miou"] <= 1
    (folder,) = (tmp_path / "run" / "target-labels").iterdir()
    facts = json.loads((folder / "round.json").read_text(), parse_constant=pytest.fail)
    seen = [bool(count) for count in facts["predicted"]]
    assert [tau is not None for tau in facts["thresholds"]] == seen and not all(seen), (
        "what is seen nowhere has none"
    )
    assert folder.name == "00000004" and facts["step"] == 4, "labelled before steps 2 and 4; the last is kept"
    assert sum(facts["predicted"]) == 80 * 80, "every pixel of the target was predicted"
    assert {p.name for p in folder.iterdir()} == {"round.json", "labels-000000.tif"}
    with rasterio.open(folder / "labels-000000.tif") as labels:
        kept = labels.read(1)
        assert labels.transform.a == 2 and (kept != 255).sum() == sum(facts["labelled"]) > 0
    weights = load_file(tmp_path / "run" / "weights.safetensors")
    one, two = (weights[f"encoder.bn1.norms.{d}.running_mean"] for d in (0, 1))
    assert not torch.allclose(one, two), "either sensor has statistics of its own"
    classes, _ = mapped_alike(trained.model, tile(other, tmp_path, 7), tmp_path)
    assert classes.shape == (80, 560)


def mapped_alike(model: Path, scene: Path, folder: Path, feather: int = 32) -> tuple[np.ndarray, Affine]:
    """The map of a scene of several blocks, by one process and by two workers alike."""
    maps = {}
    for workers in (None, 2):
        out = folder / f"product-{workers}"
        engine = EngineOptions(
            window=128, trim=0, feather=feather, block=(512, 512), workers=workers, device="cpu",
            precision="fp32",
        )  # fmt: skip
        map_scene(MapRequest(Imagery((str(scene),)), out, str(model), engine=engine))
        with rasterio.open(out / "landcover.tif") as product:
            maps[workers], transform = product.read(1), product.transform
    assert (maps[None] == maps[2]).all()
    return maps[None], transform


def formats_alike(folder: Path, scene: Path, out: Path, feather: int = 32) -> None:
    """Both formats are written, and map alike, by one process and by two workers."""
    one, two = (mapped_alike(folder / name, scene, out / name, feather) for name in ("model.pt", "model.pt2"))
    assert one[1] == two[1] and (one[0] == two[0]).mean() > 0.9999, "but for ties of rounding"


@pytest.mark.slow
def test_lovecs_becomes_a_pt2_file_that_maps_alike(city: Path, other: Path, tmp_path: Path) -> None:
    method = {"name": "csn", "warm_up": 0.5, "scales": [1.0, 2.0]}
    recipe = LOVECS | {"method": method, "epochs": 1}
    trained = train(request(city, other, tmp_path / "run", recipe, pt2=True))
    formats_alike(trained.folder, tile(other, tmp_path, 7), tmp_path)


@pytest.mark.slow
def test_daspm_becomes_a_pt2_file_that_maps_alike(city: Path, coarse: Path, tmp_path: Path) -> None:
    trained = train(request(city, coarse, tmp_path / "run", DASPM, pt2=True))
    formats_alike(trained.folder, tile(coarse, tmp_path, 4), tmp_path)


def tile(image: Path, folder: Path, times: int) -> Path:
    """The image again and again, side by side: two blocks."""
    with rasterio.open(image) as source:
        pixels, profile, names = source.read(), dict(source.profile), source.descriptions
    return write(folder / "large.tif", np.tile(pixels, (1, 1, times)), profile, names, profile["transform"].a)


def train_with_a_stop(given: TrainRequest, step: int) -> None:
    """Train, be stopped at a step, and go on."""
    with pytest.MonkeyPatch.context() as patch:
        watch = stopping(patch, step)
        with pytest.raises(StoppedError):
            train(given, watch)
    train(replace(given, resume=True))


@pytest.mark.usefixtures("unwritten")
@pytest.mark.parametrize("step", [1, 2])
def test_a_stopped_run_goes_on_to_the_same_weights(
    city: Path, other: Path, tmp_path: Path, step: int
) -> None:
    recipe = LOVECS | {"epochs": 1, "chips_per_epoch": 6}  # labelled before steps 1 and 2
    train(request(city, other, tmp_path / "straight", recipe))
    train_with_a_stop(request(city, other, tmp_path / "broken", recipe), step)
    one, two = (load_file(tmp_path / n / "weights.safetensors") for n in ("straight", "broken"))
    for name, tensor in one.items():
        assert torch.equal(tensor, two[name]), name


@pytest.mark.usefixtures("unwritten")
def test_what_was_found_of_the_target_outlives_a_stop_and_the_rounds(
    city: Path, other: Path, tmp_path: Path
) -> None:
    method = LOVECS["method"] | {"statistics": "auto", "scales": [1.0]}
    recipe = LOVECS | {"method": method, "epochs": 1, "chips_per_epoch": 6}
    train(request(city, other, tmp_path / "straight", recipe))
    train_with_a_stop(request(city, other, tmp_path / "broken", recipe), 2)
    one, two = ((tmp_path / n / "target-labels" / "steadiness.json") for n in ("straight", "broken"))
    assert list(json.loads(one.read_text())) == ["1", "2"] and one.read_text() == two.read_text()
    assert [path.name for path in sorted(one.parent.glob("0*"))] == ["00000002"]
    assert [len(steadiness_before(tmp_path / "broken", step)) for step in (1, 2, 3)] == [0, 1, 2]


@pytest.mark.usefixtures("unwritten")
def test_labelling_a_target_ends_soon_after_it_is_told_to(
    city: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from citycover_models.training import domains as module

    watch, real = TrainWatch(), module.label_targets

    def told(*arguments: Any, **named: Any) -> None:
        watch.stop.set()
        real(*arguments, **named)

    monkeypatch.setattr(module, "label_targets", told)
    with pytest.raises(StoppedError):
        train(request(city, other, tmp_path / "run", LOVECS | {"epochs": 1}), watch)
    assert not list((tmp_path / "run" / "target-labels").glob("*/round.json"))
    assert (tmp_path / "run" / "checkpoint.pt").is_file()


def test_a_round_of_labels_that_says_it_is_whole_is_so_after_a_power_cut(
    city: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from citycover_models.training import domains as module

    trees, real = list[Tree](), module.label_targets
    (tmp_path / "run" / "target-labels").mkdir(parents=True)

    def recorded(*arguments: Any, **named: Any) -> None:
        trees.extend(left_by(tmp_path / "run" / "target-labels", lambda: real(*arguments, **named)))

    monkeypatch.setattr(module, "label_targets", recorded)
    recipe = LOVECS | {"epochs": 1, "chips_per_epoch": 6}
    watch = stopping(monkeypatch, 2)
    plan = tmp_path / "run" / "plan.json"
    plan.write_text(json.dumps({"citycover": "0", "recipe": {}, "samples": {}}))
    with pytest.raises(StoppedError):
        train(request(city, other, tmp_path / "run", recipe), watch)
    sign, labels = "00000001/round.json", "00000001/labels-000000.tif"
    whole = trees[-1]
    assert whole[sign] and whole[labels] and any(not tree.get(labels) for tree in trees)
    assert all(tree[labels] == whole[labels] for tree in trees if tree.get(sign) == whole[sign])


@pytest.mark.usefixtures("unwritten")
@pytest.mark.parametrize("name", ["source-only", "adabn", "csn"])
def test_the_baselines_train_in_the_same_loop(city: Path, other: Path, tmp_path: Path, name: str) -> None:
    method = {"name": name, "scales": [1.0]}
    train(request(city, other, tmp_path / name, LOVECS | {"method": method, "epochs": 1}))
    weights = load_file(tmp_path / name / "weights.safetensors")
    one, two = (weights[f"encoder.bn1.norms.{d}.running_mean"] for d in (0, 1))
    assert torch.equal(one, two) == (name == "source-only")
    assert not (tmp_path / name / "target-labels").exists()


@pytest.mark.usefixtures("unwritten")
def test_chips_of_the_target_without_labels_move_no_weight(city: Path, other: Path, tmp_path: Path) -> None:
    for method in ({"name": "source-only"}, {"name": "csn", "warm_up": 0.0, "scales": [1.0]}):
        given = LOVECS | {"method": method, "epochs": 1}
        train(request(city, other, tmp_path / method["name"], given))
    one, two = (load_file(tmp_path / name / "weights.safetensors") for name in ("source-only", "csn"))
    for name in one:
        same = torch.equal(one[name], two[name])
        assert same == (".norms.1.running" not in name or name.endswith("tracked")), name


@pytest.mark.usefixtures("unwritten")
@pytest.mark.parametrize("name", ["csn", "lovecs"])
def test_no_training_ends_nor_is_kept_before_the_target_came_in(
    city: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The criterion sees the source alone, and may be best while nothing else is learned."""
    from citycover_models.training import coarse

    falling = iter([0.9, 0.8, 0.7, 0.6])
    monkeypatch.setattr(coarse, "validate", lambda *_: {"validation_miou": next(falling)})
    method = {"name": name, "warm_up": 0.2, "scales": [1.0]}  # two steps of nine
    recipe = LOVECS | {"method": method, "epochs": 9, "chips_per_epoch": 2, "patience": 1}
    trained = train(request(city, other, tmp_path / "run", recipe))
    assert trained.steps == 4 and trained.validation == {"validation_miou": 0.7}
    weights = load_file(tmp_path / "run" / "weights.safetensors")
    one, two = (weights[f"encoder.bn1.norms.{d}.running_mean"] for d in (0, 1))
    assert two.any() and not torch.equal(one, two), "statistics of a target that was looked at"
    assert weights["encoder.bn1.norms.1.num_batches_tracked"] == 3, "the best weights: those of step 3"


@pytest.mark.usefixtures("unwritten")
@pytest.mark.parametrize("name", ["adabn", "csn", "lovecs"])
def test_a_target_that_is_not_trusted_at_all_maps_by_the_statistics_of_the_source(
    city: Path, other: Path, tmp_path: Path, name: str
) -> None:
    method = {"name": name, "scales": [1.0], "statistics": 0.0}
    train(request(city, other, tmp_path / "run", LOVECS | {"method": method, "epochs": 1}))
    weights = load_file(tmp_path / "run" / "weights.safetensors")
    assert torch.equal(*(weights[f"encoder.bn1.norms.{d}.running_mean"] for d in (0, 1)))


def test_a_share_is_found_for_each_labelling_and_for_the_map(
    city: Path, other: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    method = LOVECS["method"] | {"statistics": "auto", "scales": [1.0]}
    recipe = LOVECS | {"method": method, "epochs": 1}  # labelled before steps 1 and 2
    trained = train(request(city, other, tmp_path / "run", recipe))
    shares = re.findall(r"statistics of the target count for ([\d.]+)", caplog.text)
    assert len(shares) == 3 and set(map(float, shares)) <= {0, 0.25, 0.5, 0.75, 1}
    assert re.findall(r"(\d) time\(s\) before", caplog.text) == ["0", "1", "2"]
    assert not [n for n, _ in torch.jit.load(str(trained.model)).named_buffers() if ".norms." in n]


@pytest.mark.usefixtures("unwritten")
def test_a_sensor_that_was_never_seen_maps_by_the_statistics_of_the_other(city: Path, tmp_path: Path) -> None:
    recipe = LOVECS | {"method": {"name": "ce"}, "epochs": 1}
    source = ImageAndLabels(str(city / "image.tif"), (str(city / "truth.tif"),))
    alone = prepare_training_set([source], ["city"], None)
    train(TrainRequest(alone, small_recipe(**recipe), tmp_path / "run", workers=0, measure=False))
    weights = load_file(tmp_path / "run" / "weights.safetensors")
    assert torch.equal(*(weights[f"encoder.bn1.norms.{d}.running_var"] for d in (0, 1)))


def test_one_domain_too_few_or_too_many_is_said(city: Path, other: Path, tmp_path: Path) -> None:
    given = request(city, other, tmp_path / "run", LOVECS)
    with pytest.raises(ConfigError, match=r"'lovecs' adapts to a target, and none is given; give --target"):
        train(replace(given, training_set=replace(given.training_set, target=None)))
    with pytest.raises(ConfigError, match=r"'ce' learns from one domain.*leave it out, or take.*lovecs"):
        train(request(city, other, tmp_path / "run", LOVECS | {"method": {"name": "ce"}}))
    assert not (tmp_path / "run").exists()


def test_a_target_that_is_all_nodata_is_refused(city: Path, other: Path, tmp_path: Path) -> None:
    with rasterio.open(other) as source:
        pixels, profile, names = source.read(), dict(source.profile), source.descriptions
    empty = write(tmp_path / "empty.tif", np.zeros_like(pixels), profile | {"nodata": 0}, names, 2.0)
    with pytest.raises(ConfigError, match=r"target .*empty.tif has no valid pixel: all of it is nodata"):
        train(request(city, empty, tmp_path / "run", LOVECS))


@pytest.mark.parametrize("recipe", ["lovecs", "daspm"])
@pytest.mark.parametrize("number", [np.uint8(250), np.uint8(0), np.float32(0.3), np.float32(-40)])
def test_a_target_that_shows_one_number_is_refused(
    city: Path, other: Path, tmp_path: Path, recipe: str, number: np.generic
) -> None:
    with rasterio.open(other) as source:
        shape, profile, names = (4, *source.shape), dict(source.profile), source.descriptions
    profile.update(predictor=1)
    flat = write(tmp_path / "cloud.tif", np.full(shape, number), profile, names, 2.0)
    fields = LOVECS if recipe == "lovecs" else DASPM | {"network": "daformer-b0", "chip": 32}
    shown = f"{float(number):g}"
    with pytest.raises(
        ConfigError, match=rf"cloud.tif shows one number nearly everywhere \({shown}, .*needed"
    ):
        train(request(city, flat, tmp_path / "run", fields))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("recipe", ["lovecs", "daspm"])
def test_where_the_target_has_no_pixel_its_own_mean_stands(
    city: Path, coarse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str
) -> None:
    """In chips, in what it is judged by, and in the card, by which it is mapped."""
    from citycover_models.training import domains as module

    with rasterio.open(coarse) as source:
        pixels, profile, names = source.read(), dict(source.profile), source.descriptions
    pixels[:, ::2, ::2] = 0
    holes = write(tmp_path / "holes.tif", pixels, profile | {"nodata": 0}, names, 5.0)
    given = request(city, holes, tmp_path / "run", LOVECS if recipe == "lovecs" else DASPM)
    material = DomainsMaterial(given, given.training_set, given.training_set.target)
    mean = pixels[:, pixels[0] > 0].mean(1)
    reader, plan = material._target_reader(given.training_set.target.pairs), material.target_plan
    chip, labels = reader.read(replace(plan.draw(0, 0), side=0))
    assert (labels == IGNORE).any()
    assert chip[labels == IGNORE].mean(0) == pytest.approx(mean, rel=0.02) and mean.min() > 1000
    assert material._card(0, None).groups[0].fills == pytest.approx(mean, rel=0.02)
    fills = list[Any]()
    monkeypatch.setattr(module, "judge", lambda _network, _pairs, fill, *_: fills.append(fill) or {})
    network = material.network()
    monkeypatch.setattr(material, "know", lambda _trainee: None)
    monkeypatch.setattr(material, "_mapping_form", lambda *given: given)
    monkeypatch.setattr(type(given.recipe.method), "settle", lambda *_: None)
    material.conclude(SimpleNamespace(kept=network), 0)
    assert fills == [pytest.approx(mean, rel=0.02)]


LIT = {"symmetries": False, "brightness": 0.5, "contrast": 0.4}


def striped(path: Path, like: Path, low: float, high: float, dtype: str) -> Path:
    """Columns of two numbers in turn: chips of an even side have their mean, and half their distance."""
    with rasterio.open(like) as source:
        profile, names = dict(source.profile), source.descriptions
    profile |= {"photometric": "minisblack", "predictor": 1}
    pixels = np.where(np.arange(160) % 2, high, low).astype(dtype)
    return write(path, np.broadcast_to(pixels, (4, 160, 160)), profile, names, 1.0)


@pytest.mark.parametrize(
    ("kind", "numbers", "brightest"),
    [
        ("uint8", (10, 30), (11, 39)),  # mean 20, deviation 10: 20 -+ 1.4 * 10 + 0.5 * 10
        ("uint16", (1000, 3000), (1100, 3900)),  # mean 2000, deviation 1000
        ("float32", (0.1, 0.3), (0.11, 0.39)),
    ],
)
@pytest.mark.parametrize("recipe", ["lovecs", "daspm"])
def test_light_varies_either_domain_by_its_own_mean_and_deviation(
    city: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    kind: str, numbers: tuple[float, float], brightest: tuple[float, float], recipe: str,
) -> None:  # fmt: skip
    """By the source's, mean 100 and deviation 10, 3000 would be 100 + 1.4 * 2900 + 5: gain, and no light."""
    source = striped(tmp_path / "source.tif", city / "image.tif", 90, 110, "uint8")
    target = striped(tmp_path / "target.tif", city / "image.tif", *numbers, kind)
    own = prepare_training_set([ImageAndLabels(str(source), (str(city / "truth.tif"),))], ["city"], None)
    given = prepare_targets(own, [ImageAndLabels(str(target), ())])
    fields = LOVECS | {"method": LOVECS["method"] | {"scales": [1.0]}, "validation": 0.0}
    if recipe == "daspm":
        fields = DASPM | {"network": "daformer-b0", "chip": 32, "balance": "uniform"}
    request = TrainRequest(given, small_recipe(**fields, augment=LIT), tmp_path / "run", measure=False)
    material = DomainsMaterial(request, given, given.target)
    theirs = material._target_reader(given.target.pairs)
    readers = (material.reader, material.plan), (theirs, material.target_plan)
    chips = [as_planes(reader.read(plan.draw(0, 0))[0])[None] for reader, plan in readers]
    labels = torch.zeros(1, 32, 32, dtype=torch.int64)
    monkeypatch.setattr("citycover_models.data.augment._uniform", lambda shape, _: torch.ones(shape))
    batch = LabelledBatch(chips[0], labels, target=LabelledBatch(chips[1], labels))
    varied = material.vary(batch, torch.Generator())
    # DASPM's source has the target's numbers, and so has any that would be of another kind.
    expected = (91.0, 119.0) if (recipe, kind) == ("lovecs", "uint8") else brightest
    for images, (low, high) in ((varied.images, expected), (varied.target.images, brightest)):
        assert images.amin((0, 2, 3)).tolist() == pytest.approx([low] * 4, rel=2e-3)
        assert images.amax((0, 2, 3)).tolist() == pytest.approx([high] * 4, rel=2e-3)


def test_a_class_that_the_source_never_has_is_said_and_not_drawn(
    city: Path, other: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with rasterio.open(city / "truth.tif") as truth:
        ids, profile = truth.read(), dict(truth.profile)
    present, counts = np.unique(ids[ids > 0], return_counts=True)
    least = int(present[counts.argmin()])
    with rasterio.open(tmp_path / "truth.tif", "w", **profile) as sink:
        sink.write(np.where(ids == least, 0, ids))
    source = ImageAndLabels(str(city / "image.tif"), (str(tmp_path / "truth.tif"),))
    known = prepare_training_set([source], ["city"], None)
    given = prepare_targets(known, [ImageAndLabels(str(other), ())])
    recipe = small_recipe(**(LOVECS | {"balance": "rare", "chip": 32}))
    material = DomainsMaterial(TrainRequest(given, recipe, tmp_path / "run"), given, given.target)
    material.warn()
    name = known.legend.names[known.legend.ids.index(least)]
    assert re.search(f"no label means [^:]*{name}[^:]*: the map will not hold them", caplog.text)
    odds = rare_class_odds(material.plan.label_counts, 0.01)
    assert odds[known.legend.ids.index(least)] == 0 and odds.sum() == pytest.approx(1)


def test_domains_of_different_bands_are_refused(city: Path, other: Path, tmp_path: Path) -> None:
    with rasterio.open(other) as source:
        pixels, profile, names = source.read(), dict(source.profile), source.descriptions
    three = write(tmp_path / "rgb.tif", pixels[:3], profile, names[:3], 2.0)
    with pytest.raises(
        SceneError,
        match=r"rgb.tif has red, green, blue: .*; both domains need .*, here red, green, blue, nir; name",
    ):
        domains(city, ImageAndLabels(str(three), ()))
    with pytest.raises(SceneError, match=r"target .*b.tif has 2 bands.*the source has 4: red"):
        domains(city, ImageAndLabels(str(other), ()), seen=Imagery((), ("1", "2")))


def test_pixels_thirty_times_as_large_are_refused(city: Path, other: Path, tmp_path: Path) -> None:
    with rasterio.open(other) as source:
        pixels, profile, names = source.read(), dict(source.profile), source.descriptions
    coarse = write(tmp_path / "coarse.tif", pixels, profile, names, 30.0)
    with pytest.raises(ConfigError, match=r"30 times as large.*bridges 1/8 to 8"):
        train(request(city, coarse, tmp_path / "run", LOVECS))


@pytest.mark.parametrize(
    ("recipe", "sizes", "worst"),
    [("lovecs", (0.1, 10.0), 0.1), ("lovecs", (1.0, 10.0), 10.0), ("daspm", (4.0, 12.0), 12.0)],
)
def test_each_target_must_be_bridged_not_their_mean_alone(
    city: Path, other: Path, tmp_path: Path, recipe: str, sizes: tuple[float, ...], worst: float
) -> None:
    with rasterio.open(other) as source:
        pixels, profile, names = source.read(), dict(source.profile), source.descriptions
    targets = [write(tmp_path / f"{gsd:g}.tif", pixels, profile, names, gsd) for gsd in sizes]
    both = domains(city, *(ImageAndLabels(str(path), ()) for path in targets))
    given = request(city, other, tmp_path / "run", LOVECS if recipe == "lovecs" else DASPM)
    with pytest.raises(
        ConfigError, match=rf"target .*/{worst:g}.tif has pixels of {worst:.3g} m.*times as large"
    ):
        train(replace(given, training_set=both))


def test_labels_of_the_target_are_said_to_be_for_judging_alone(
    city: Path, other: Path, caplog: pytest.LogCaptureFixture
) -> None:
    judged = domains(city, ImageAndLabels(str(other), (str(city / "truth.tif"),)))
    assert judged.target is not None and not judged.target.pairs[0].labels and judged.target.judged
    assert "judged by them, and nothing is learned from them" in caplog.text


def test_labels_of_the_target_need_a_legend_each(city: Path, other: Path) -> None:
    source = ImageAndLabels(str(city / "image.tif"), (str(city / "truth.tif"),))
    learned = prepare_training_set([source], ["city"], None)
    truth = str(city / "truth.tif")
    with pytest.raises(ConfigError, match="labels need --legend: the name of a built-in legend"):
        prepare_targets(learned, [ImageAndLabels(str(other), (truth,))])
    with pytest.raises(ConfigError, match=r"b.tif has 3 label rasters for 2 legends; give one --legend"):
        prepare_targets(learned, [ImageAndLabels(str(other), (truth,) * 3)], ["city"] * 2)


def test_a_network_is_settled_on_the_target_in_its_own_pixels(
    city: Path, other: Path, tmp_path: Path
) -> None:
    given = request(city, other, tmp_path / "run", LOVECS)
    material = DomainsMaterial(given, given.training_set, given.training_set.target)
    assert material.target_plan.scales == (2.0,), "while training, chips are enlarged as they are mapped"
    sight = material._sight(torch.device("cpu"), 0)
    with rasterio.open(other) as file:
        bands = np.lib.stride_tricks.sliding_window_view(file.read(), (32, 32), (1, 2))
    for chip in next(sight.chips()).images[:2].numpy():
        inside = chip[:, None, None] == bands  # (band, row, column, y, x)
        assert inside.all((0, 3, 4)).any(), "pixels of the file, none between them"
    assert torch.equal(next(sight.chips()).images, next(sight.chips()).images), "from the first, each time"


@pytest.mark.parametrize(("network", "near"), [("daspm-b0", 160), ("daspm-hrda-b0", 320), ("hrda-b0", 192)])
def test_chips_that_fit_are_told_at_once_for_both_grids(network: str, near: int) -> None:
    build = find_preset(network)
    recipe = small_recipe(**(DASPM | {"network": network, "chip": 208}))
    with pytest.raises(ConfigError, match=f"chips of 208 px do not fit {network}.*chip = {near}$"):
        build_network(build, recipe, 5, IMAGENET_RGB)


def test_the_published_recipe_is_the_published_schedule() -> None:
    recipe = read_recipe("lovecs")
    assert recipe.epochs * recipe.chips_per_epoch // recipe.batch == 15_000
    assert (recipe.optimiser.lr, recipe.clip, recipe.chip, recipe.batch) == (0.01, 35.0, 512, 8)
    assert recipe.method.stages(15_000)[1].first == 10_000


DASPM = {
    "network": "daspm-b0",
    "method": {"name": "daformer", "alpha": 0.9, "border": 1},
    "chip": 160,
    "batch": 1,
    "epochs": 1,
    "chips_per_epoch": 2,
    "balance": "rare",
    "validation": 0.0,
    "ema": None,
    "optimiser": {"name": "adamw", "lr": 0.001, "head_times": 10, "no_decay": ["norm"]},
    "schedule": {"name": "poly", "power": 1.0, "warm_up": 2, "warm_up_from": 1e-6},
}


@pytest.fixture(scope="module")
def coarse(tmp_path_factory: pytest.TempPathFactory, city: Path) -> Path:
    """The same place in pixels of 5 m, in other digital numbers."""
    with rasterio.open(city / "image.tif") as source:
        pixels, profile, names = source.read(), dict(source.profile), source.descriptions
    mean = pixels.reshape(4, 32, 5, 32, 5).mean((2, 4)) * 10 + 1000
    profile.update(photometric="minisblack", predictor=1)
    return write(tmp_path_factory.mktemp("coarse") / "s2.tif", mean.astype(np.uint16), profile, names, 5.0)


def test_chips_of_the_target_show_the_ground_of_those_of_the_source(
    city: Path, coarse: Path, tmp_path: Path
) -> None:
    given = request(city, coarse, tmp_path / "run", DASPM | {"chip": 320})
    assert DomainsMaterial(given, given.training_set, given.training_set.target).target_plan.chip == 64


def test_a_source_that_is_resampled_is_judged_as_it_is_learned_from(
    city: Path, other: Path, tmp_path: Path
) -> None:
    with rasterio.open(other) as source:
        pixels, profile, names = source.read(), dict(source.profile), source.descriptions
    finer = write(tmp_path / "finer.tif", pixels, profile, names, 0.5)
    recipe = DASPM | {"network": "daformer-b0", "chip": 32, "validation": 0.2, "rescale": [0.75, 1.25]}
    given = request(city, finer, tmp_path / "run", recipe)
    plan = DomainsMaterial(given, given.training_set, given.training_set.target).plan
    assert {chip.window.height for chip in plan.epoch(0)} <= {13, 21}, "16 px, enlarged twice, and varied"
    assert {(chip.window.height, chip.side) for chip in plan.validation} == {(16, 32)}


@pytest.mark.parametrize(("network", "near"), [("daspm-b0", 160), ("daspm-hrda-b0", 320)])
def test_chips_without_a_whole_coarse_pixel_are_refused_once(
    city: Path, coarse: Path, tmp_path: Path, network: str, near: int
) -> None:
    """Before chips of the target are planned, with a number that the network takes as well."""
    given = request(city, coarse, tmp_path / "run", DASPM | {"network": network, "chip": 208})
    with pytest.raises(ConfigError, match=f"chips of 208 px do not fit {network}.*chip = {near}$"):
        DomainsMaterial(given, given.training_set, given.training_set.target)


def test_daspm_maps_five_times_finer_than_it_sees(city: Path, coarse: Path, tmp_path: Path) -> None:
    trained = train(request(city, coarse, tmp_path / "run", DASPM, labels=city / "truth.tif"))
    card = read_model_file(trained.model).card
    assert card.output_scale == 5 and card.native_gsd == pytest.approx(5.0, rel=1e-3)
    assert "uint16" in card.groups[0].dtypes and card.groups[0].fills[0] > 1000, "numbers of the target"
    assert 0 <= trained.test["target_miou"] <= 1
    classes, transform = mapped_alike(trained.model, tile(coarse, tmp_path, 4), tmp_path)
    assert classes.shape == (160, 640) and transform.a == 1.0


HRDA = DASPM | {
    "network": "hrda-b0",
    "method": {"name": "daformer", "alpha": 0.9, "feature_weight": 0.0, "masked_weight": 1.0},
    "chip": 64,
}


@pytest.mark.usefixtures("unwritten")
def test_both_resolutions_and_their_shares_are_learned(city: Path, other: Path, tmp_path: Path) -> None:
    train(request(city, other, tmp_path / "run", HRDA | {"chips_per_epoch": 1}))
    one = load_file(tmp_path / "run" / "weights.safetensors")
    train(request(city, other, tmp_path / "more", HRDA))
    two = load_file(tmp_path / "more" / "weights.safetensors")
    for part in ("backbone.patch_embed1", "decode_head.conv_seg", "scale_attention.conv_seg"):
        moved = [name for name in one if name.startswith(part) and not torch.equal(one[name], two[name])]
        assert moved, part


@pytest.mark.slow
def test_a_network_of_two_resolutions_becomes_files_of_both_formats_that_map_alike(
    city: Path, other: Path, tmp_path: Path
) -> None:
    trained = train(request(city, other, tmp_path / "run", HRDA, pt2=True))
    card = read_model_file(trained.model).card
    assert (card.window.multiple, card.output_scale) == (128, 1)
    formats_alike(trained.folder, tile(other, tmp_path, 7), tmp_path, feather=64)


@pytest.mark.usefixtures("unwritten")
def test_a_stopped_teacher_goes_on_as_it_was(city: Path, coarse: Path, tmp_path: Path) -> None:
    recipe = DASPM | {"method": {"name": "daformer", "alpha": 0.9, "eval_with": "teacher"}}
    train(request(city, coarse, tmp_path / "straight", recipe))
    train_with_a_stop(request(city, coarse, tmp_path / "broken", recipe), 1)
    one, two = (load_file(tmp_path / n / "weights.safetensors") for n in ("straight", "broken"))
    for name, tensor in one.items():
        assert torch.equal(tensor, two[name]), name


def test_encoder_head_and_norms_have_rates_and_decays_of_their_own() -> None:
    from citycover_models.nets.daformer import DAFormer
    from citycover_models.training.setup import make_optimiser

    recipe = read_recipe("daspm")
    network = DAFormer("b0")
    groups = make_optimiser(recipe.optimiser, network).param_groups
    found = {(g["times"], g["weight_decay"]): len(g["params"]) for g in groups}
    norms = sum("norm" in name for name, _ in network.backbone.named_parameters())
    assert found == {
        (1.0, 0.0): norms,
        (1.0, 0.01): len(list(network.backbone.parameters())) - norms,
        (10.0, 0.01): len(list(network.decode_head.parameters())),
    }
    rates = [recipe.schedule.rate(6e-5, step, 60_000, 0) for step in (0, 750, 1500, 30_000, 59_999)]
    assert rates[0] == pytest.approx(6e-11) and rates[3] == pytest.approx(3e-5) and rates[4] < 2e-9
    assert rates[1] == pytest.approx(6e-5 * (1 - 750 / 60_000) * 0.5, rel=1e-4)
