"""Mapping and training on a CUDA device: `make test-gpu`.

`CITYCOVER_GPU=cpu make test-gpu` runs all but what only a GPU has, to try the tests themselves.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from material import write_network
from training_sets import make_city, small_recipe, training_set_of

from citycover.evidence.request import LabelRequest
from citycover.job.request import EngineOptions, Imagery, MapRequest
from citycover.model.bench import lanes_here
from citycover.model.form import FORMS, Form, forms_here
from citycover.model.gate import fast_precision, passes_gate
from citycover.model.predictor import ModelPredictor
from citycover.model.probabilities import to_probabilities
from citycover.run.map import map_scene
from citycover_models.export.network import export_preset
from citycover_models.training.request import TrainRequest
from citycover_models.training.start import train

DEVICE = os.environ.get("CITYCOVER_GPU", "cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="no CUDA device here"),
]
only_cuda = pytest.mark.skipif(DEVICE != "cuda", reason="the memory of a CUDA device is what is tested")


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_city(tmp_path_factory.mktemp("city"), 640)


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_network("unet", tmp_path_factory.mktemp("unet") / "unet.pt")


@pytest.fixture
def little_memory() -> Iterator[None]:
    """So little that large batches do not fit."""
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((2 << 30) / total)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


def mapped(city: Path, out: Path, model: Path, **changes: Any) -> tuple[np.ndarray, dict[str, Any]]:
    """Classes, and run.json."""
    imagery, labels = Imagery((str(city / "image.tif"),)), changes.pop("labels", None)
    product = map_scene(MapRequest(imagery, out, str(model), engine=EngineOptions(**changes), labels=labels))
    with rasterio.open(out / "landcover.tif") as dataset:
        return dataset.read(1), product.run.facts()


def test_a_map_is_that_of_the_processor(city: Path, unet: Path, tmp_path: Path) -> None:
    here, _ = mapped(city, tmp_path / "cpu", unet, device="cpu", precision="fp32", window=352)
    there, run = mapped(city, tmp_path / "gpu", unet, device=DEVICE, precision="fp32", window=352)
    assert run["device"].startswith(DEVICE)
    assert ((here == 0) == (there == 0)).all()
    assert (here == there).mean() > 0.9999 and len(np.unique(here)) > 2


def test_labels_are_the_same_evidence_on_the_device(city: Path, tmp_path: Path) -> None:
    recipe = small_recipe(network="l2hnet-tiny", chip=64, batch=4, epochs=1, chips_per_epoch=32)
    model = train(TrainRequest(training_set_of(city), recipe, tmp_path / "run", device=DEVICE)).model
    labels = {"labels": LabelRequest((str(city / "labels_10m.tif"),), change=True), "precision": "fp32"}
    here, _ = mapped(city, tmp_path / "cpu", model, device="cpu", **labels)
    there, run = mapped(city, tmp_path / "gpu", model, device=DEVICE, **labels)
    assert run["labels"]["files"] and run["device"].startswith(DEVICE)
    assert (here == there).mean() > 0.999


@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
@only_cuda
def test_less_precision_is_near(city: Path, unet: Path, tmp_path: Path, precision: str) -> None:
    exact, _ = mapped(city, tmp_path / "exact", unet, device=DEVICE, precision="fp32", window=352)
    fast, run = mapped(city, tmp_path / "fast", unet, device=DEVICE, precision=precision, window=352)
    assert run["precision"] == precision
    assert (exact == fast).mean() > 0.97


@pytest.mark.parametrize("form", FORMS[1:])
def test_other_forms_say_what_torch_says(unet: Path, form: Form) -> None:
    """In every precision that the form has, twice: made, and as it was kept."""
    device = torch.device(DEVICE)
    if form not in forms_here(device.type):
        pytest.skip(f"{form} is not here")
    windows = [torch.randint(0, 255, (2, 4, 256, 256), dtype=torch.uint8, device=device)]
    for _ in range(2):
        predictor = ModelPredictor.load(unet, device)
        exact = to_probabilities(predictor(windows), predictor.card)
        for lane in lanes_here(device):
            if lane.form == form:
                scores = predictor.at(lane.precision, form)(windows)
                assert passes_gate(exact, to_probabilities(scores, predictor.card)), lane


@only_cuda
def test_a_gpu_takes_the_largest_window_and_blocks_as_wide_as_the_map(city: Path, tmp_path: Path) -> None:
    model = write_network("cheap", tmp_path / "cheap.pt")
    _, run = mapped(city, tmp_path / "out", model, device=DEVICE)
    assert run["plan"]["blocks"][1] == 1
    assert run["windows"]["slots"] == run["windows"]["run"]
    assert run["stages"]["device"] > 0 and run["beside"]["forward"] > 0 and "forward" not in run["stages"]


def test_workers_on_the_device_compute_the_same_pixels(city: Path, unet: Path, tmp_path: Path) -> None:
    settings = {"device": DEVICE, "window": 352, "batch": 2}
    alone, _ = mapped(city, tmp_path / "alone", unet, **settings)
    shared, run = mapped(city, tmp_path / "shared", unet, workers=2, **settings)
    assert run["workers"] == 2
    np.testing.assert_array_equal(alone, shared)


def test_an_exported_program_maps_on_the_device(city: Path, tmp_path: Path) -> None:
    program = tmp_path / "net.pt2"
    export_preset("l2hnet-tiny", program, measure=False)
    here, _ = mapped(city, tmp_path / "cpu", program, device="cpu", precision="fp32")
    there, _ = mapped(city, tmp_path / "gpu", program, device=DEVICE, precision="fp32")
    assert (here == there).mean() > 0.9999


@only_cuda
def test_reduced_precision_is_native() -> None:
    assert fast_precision(torch.device(DEVICE)) in ("bf16", "fp16")


@only_cuda
def test_fp32_is_not_tf32(unet: Path) -> None:
    there, here = (ModelPredictor.load(unet, torch.device(device)) for device in (DEVICE, "cpu"))
    windows = torch.randint(0, 255, (1, 4, 256, 256), dtype=torch.uint8)
    exact = here([windows])
    assert (there([windows.to(DEVICE)]).cpu() - exact).abs().max() < 1e-4 * exact.abs().max()


@only_cuda
@pytest.mark.usefixtures("little_memory")
def test_a_batch_that_does_not_fit_is_halved(city: Path, unet: Path, tmp_path: Path) -> None:
    small, _ = mapped(city, tmp_path / "small", unet, device=DEVICE, precision="fp32", window=352, batch=1)
    large, _ = mapped(city, tmp_path / "large", unet, device=DEVICE, precision="fp32", window=352, batch=64)
    assert (small == large).mean() > 0.9999


def test_a_network_is_trained_on_the_device_and_maps(city: Path, tmp_path: Path) -> None:
    recipe = small_recipe(network="l2hnet-tiny", chip=64, batch=4, epochs=4, chips_per_epoch=32)
    done = train(TrainRequest(training_set_of(city), recipe, tmp_path / "run", device=DEVICE))
    assert done.steps == 32 and done.validation["validation_miou"] > 0
    classes, _ = mapped(city, tmp_path / "out", done.model, device=DEVICE)
    assert len(np.unique(classes)) > 1
