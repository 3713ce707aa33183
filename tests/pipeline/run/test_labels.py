"""A map with labels as evidence: the same pixels however it is computed, and said on the product."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import rioxarray
import torch
from labelled import write_knowing_model, write_labelled_city
from numpy.typing import NDArray

from citycover.classes.legend import read_legend
from citycover.compute.belief import believe
from citycover.compute.choices import settle
from citycover.engine.input import SweepInput
from citycover.errors import CitycoverError, StoppedError
from citycover.evidence.request import LabelRequest
from citycover.job.inputs import Inputs
from citycover.job.job import Job, prepare
from citycover.job.request import EngineOptions, Imagery, MapRequest, ProductOptions
from citycover.job.watch import Watch
from citycover.model.predictor import ModelPredictor
from citycover.product.record import read_record
from citycover.read.open import open_readers
from citycover.run.arrays import predict_array
from citycover.run.map import map_scene


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_labelled_city(tmp_path_factory.mktemp("city"), 700)


TRUSTED = 0.85


def request(city: Path, out: Path, **changes: Any) -> MapRequest:
    engine = EngineOptions(window=192, precision="fp32", block=changes.pop("block", None))
    seams = ProductOptions(verify_seams=changes.pop("verify_seams", False))
    labels = changes.pop("labels", LabelRequest((city / "labels_10m.tif",), trust=TRUSTED))
    model = changes.pop("model", str(city / "model.pt"))
    assert not changes
    image = Imagery((str(city / "image.tif"),))
    return MapRequest(image, out, model, engine=engine, product=seams, labels=labels)


def understood(asked: MapRequest) -> Job:
    return prepare(asked.imagery, asked.model, asked.where, asked.engine, asked.labels)


def pixels(out: Path) -> NDArray[np.uint8]:
    planes = []
    for name in ("landcover.tif", "confidence.tif"):
        with rasterio.open(out / name) as raster:
            planes.append(raster.read(1))
    return np.stack(planes)


@pytest.fixture(scope="module")
def mapped(city: Path) -> Path:
    map_scene(request(city, city / "mapped"))
    return city / "mapped"


def test_labels_change_the_map_for_the_better(city: Path, mapped: Path) -> None:
    map_scene(request(city, city / "alone", labels=None))
    with_labels, alone = pixels(mapped), pixels(city / "alone")
    assert (with_labels[0] != alone[0]).mean() > 0.02

    assert accuracy(city, with_labels[0]) > accuracy(city, alone[0]) + 0.02


def accuracy(city: Path, classes: NDArray[np.uint8]) -> float:
    """Share of pixels whose class is the truth's, in the legend of the map."""
    table = read_legend("landcover5").table_from("city")
    with rasterio.open(city / "truth.tif") as raster:
        truth = np.vectorize(lambda id_: table.get(id_, 0))(raster.read(1))
    return float((classes == truth)[truth > 0].mean())


def test_blocks_do_not_show(city: Path, mapped: Path, tmp_path: Path) -> None:
    map_scene(request(city, tmp_path / "out", block=(512, 512)))
    np.testing.assert_array_equal(pixels(tmp_path / "out"), pixels(mapped))


def test_a_stopped_run_goes_on_to_the_same_pixels(city: Path, tmp_path: Path) -> None:
    """What was measured of the labels is kept: the second part of the run believes them as the first did."""
    asked = request(city, tmp_path / "out", block=(512, 512), labels=LabelRequest((city / "labels_10m.tif",)))
    whole = map_scene(replace(asked, out=tmp_path / "whole"))
    watch = Watch(advanced=lambda _block: watch.stop.set())
    with pytest.raises(StoppedError):
        map_scene(asked, watch)
    again = map_scene(asked)
    assert again.run.resumed
    assert again.run.labels == whole.run.labels
    np.testing.assert_array_equal(pixels(tmp_path / "out"), pixels(tmp_path / "whole"))


@pytest.mark.parametrize("named", ["labels.tif", "mosaic.vrt"])
def test_labels_that_changed_under_a_run_end_it(city: Path, tmp_path: Path, named: str) -> None:
    labels = tmp_path / "labels.tif"
    labels.write_bytes((city / "labels_10m.tif").read_bytes())
    rasterio.shutil.copy(labels, tmp_path / "mosaic.vrt", driver="VRT")
    evidence = LabelRequest((tmp_path / named,), trust=0.9)
    asked = request(city, tmp_path / "out", block=(512, 512), labels=evidence)
    watch = Watch(advanced=lambda _block: watch.stop.set())
    with pytest.raises(StoppedError):
        map_scene(asked, watch)
    with rasterio.open(labels, "r+") as raster:
        raster.write(np.full((1, 35, 70), 2, np.uint8), window=rasterio.windows.Window(0, 0, 70, 35))
    with pytest.raises(CitycoverError, match=r"labels\.tif|another"):
        map_scene(asked)


def test_a_lazy_map_has_the_pixels_of_the_product(city: Path, mapped: Path) -> None:
    image = rioxarray.open_rasterio(city / "image.tif", chunks={"y": 200, "x": 300})
    lazy = predict_array(
        image,
        city / "model.pt",
        engine=EngineOptions(window=192, block=(512, 512)),
        labels=LabelRequest((city / "labels_10m.tif",), trust=0.85),
    )
    np.testing.assert_array_equal(np.stack([lazy.classes, lazy.confidence]), pixels(mapped))


def test_the_product_says_what_it_rests_on(city: Path, mapped: Path) -> None:
    labels = str(city / "labels_10m.tif")
    record = read_record(mapped / "run.json")
    assert record.evidence == "with labels"
    assert record.labels is not None
    assert [file.path for file in record.labels.files] == [labels]
    assert (record.labels.trust, record.labels.noise_from) == (0.85, "asked")
    assert sum(record.labels.shares.values()) == pytest.approx(1)
    assert record.labels.offset.sure
    # Labels of practice cities are drawn 4 m down and 3 m left of the place that they are written at.
    assert (record.labels.offset.rows, record.labels.offset.cols) == pytest.approx((-4, 3), abs=2.5)
    item = json.loads((mapped / "item.json").read_text())
    derived = [link["href"] for link in item["links"] if link["rel"] == "derived_from"]
    assert labels in derived
    assert item["properties"]["citycover:evidence"] == "with labels"
    with rasterio.open(mapped / "landcover.tif") as raster:
        assert raster.tags()["evidence"] == "with labels"


def test_a_map_without_labels_says_that_it_extrapolates(city: Path, tmp_path: Path) -> None:
    product = map_scene(request(city, tmp_path / "out", labels=None))
    assert (product.run.evidence, product.run.labels) == ("extrapolating", None)
    item = json.loads((tmp_path / "out" / "item.json").read_text())
    assert item["properties"]["citycover:evidence"] == "extrapolating"


def test_seams_are_verified_with_the_labels(city: Path, tmp_path: Path) -> None:
    product = map_scene(request(city, tmp_path / "out", verify_seams=True))
    assert product.run.seams is not None
    assert product.run.seams.interior < 0.002  # without the labels a tenth of the pixels would differ


def belief_of(city: Path, out: Path, **card: Any) -> Any:
    """How far the labels of the city would be believed by a model that knows so much."""
    model = write_knowing_model(out / "model.pt", **card)
    job = understood(
        request(city, out / "p", model=str(model), labels=LabelRequest((city / "labels_10m.tif",), "city"))
    )
    predictor = ModelPredictor.load(job.model.path, torch.device("cpu"))
    assert job.labels is not None
    return believe(job.labels, SweepInput(job.draft, predictor, open_readers(job.scene, 1)))


HERE = ((-180.0, -90.0, 180.0, 90.0),)
ELSEWHERE = ((100.0, 0.0, 101.0, 1.0),)


def test_noise_comes_from_the_model_where_it_was_trained_and_from_the_scene_elsewhere(
    city: Path, tmp_path: Path
) -> None:
    known = {"label_noise": 0.17, "label_cells": 5000}
    here = belief_of(city, tmp_path, **known, trained_on=HERE)
    assert (here.source, here.share) == ("model", 0.17)
    assert belief_of(city, tmp_path, **known, trained_on=ELSEWHERE).source == "scene"
    assert belief_of(city, tmp_path, **known, trained_on=HERE, label_legend="nlcd").source == "scene"
    few = belief_of(city, tmp_path, label_noise=0.17, label_cells=500, trained_on=HERE)
    assert few.source == "scene"
    assert 4000 < few.noise.cells < 4900  # of 70 x 70 cells those on which one window alone votes


def test_in_another_place_the_network_is_measured_by_what_it_says_there(city: Path, tmp_path: Path) -> None:
    known = {"label_noise": 0.17, "label_cells": 5000}
    assert belief_of(city, tmp_path, **known, trained_on=HERE).prior == ()
    there = belief_of(city, tmp_path, **known, trained_on=ELSEWHERE).prior
    asked = request(city, tmp_path / "alone", labels=None)
    map_scene(replace(asked, layers=("probabilities",)))
    with rasterio.open(tmp_path / "alone" / "probabilities.tif") as file:
        mean = file.read().astype(np.float64).mean((1, 2))
    np.testing.assert_allclose(there, mean / mean.sum(), atol=0.01)  # a few windows against all of them


def test_a_network_that_takes_classes_for_others_is_heard_less(city: Path, tmp_path: Path) -> None:
    """Its channels mean other classes than its card says: what it says of them follows no label."""
    knowing = belief_of(city, tmp_path)
    turned = write_knowing_model(tmp_path / "turned.pt", channels=(3, 4, 5, 1, 2))
    job = understood(request(city, tmp_path / "p", model=str(turned)))
    predictor = ModelPredictor.load(job.model.path, torch.device("cpu"))
    assert job.labels is not None
    belief = believe(job.labels, SweepInput(job.draft, predictor, open_readers(job.scene, 1)))
    assert sum(belief.slopes) < sum(knowing.slopes) - 1


def test_a_run_goes_on_with_the_belief_that_it_had(city: Path, tmp_path: Path) -> None:
    job = understood(request(city, tmp_path / "p", labels=LabelRequest((city / "labels_10m.tif",))))
    predictor = ModelPredictor.load(job.model.path, torch.device("cpu"))
    offset = {"rows": 3.0, "cols": -4.0, "cell": 10.0, "error": 0.01, "sure": True}
    slopes = [1.0, 0.5, 0.0, 1.0, 1.0]
    measured = {"contradicted": 0.123, "cells": 4000.0, "noise_from": "scene"}
    kept = {
        "labels": measured
        | {"offset": offset, "slopes": slopes, "prior": [0.2] * 5, "odds": [[2.5, -1.0]] * 5}
    }
    settled = settle(job, predictor, kept)
    assert settled.evidence is not None
    assert settled.evidence.rule.noise == 0.123
    assert settled.evidence.offset == (3, -4)
    assert settled.evidence.slopes == tuple(slopes)
    assert settled.evidence.prior == (0.2,) * 5
    assert settled.evidence.odds == ((2.5, -1.0),) * 5
    assert settled.kept["labels"] == kept["labels"]


def test_labels_are_found_from_any_working_directory(
    city: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker has another one than the client whose command line named them."""
    monkeypatch.chdir(city)
    asked = request(city, tmp_path / "p", labels=LabelRequest((Path("labels_10m.tif"),), trust=TRUSTED))
    inputs = Inputs.of(understood(asked))
    monkeypatch.chdir(tmp_path)
    Inputs.from_facts(inputs.facts()).check()


def test_labels_of_one_name_in_two_folders_are_two(
    city: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "labels_10m.tif").write_bytes((city / "labels_10m.tif").read_bytes())
    asked = request(city, tmp_path / "p", labels=LabelRequest((Path("labels_10m.tif"),), trust=TRUSTED))
    given = []
    for folder in (city, tmp_path):
        monkeypatch.chdir(folder)
        given.append(understood(asked).given["labels"])
    assert given[0] != given[1]
