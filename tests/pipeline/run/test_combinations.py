"""Everything together: ensembles, turned windows, dates, groups, scales and labels, however a run goes.

Networks look at single pixels here, so whatever is done to windows, none of it may change a map: a run that
was stopped and went on, one in a region, one by workers, one whose windows are turned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from conftest import write_scene
from cudnn_operators import cudnn_by_processor
from numpy.typing import NDArray
from torch import Tensor, nn

from citycover.errors import StoppedError
from citycover.evidence.request import LabelRequest
from citycover.job.request import EngineOptions, Imagery, MapRequest, ProductOptions
from citycover.job.watch import Watch
from citycover.model import form as forms
from citycover.model import predictor
from citycover.model.card import ModelCard
from citycover.model.form import Form, forms_here
from citycover.model.network import write_torchscript
from citycover.model.tensorrt import TensorRt
from citycover.plan import fit
from citycover.plan.plan import Block
from citycover.region.config import read_region
from citycover.region.run import run_region
from citycover.run.map import map_scene
from citycover.scene.laying import Laying
from citycover.scene.masking import Masking


class Colours(nn.Module):
    """Scores of each pixel alone, on a finer grid where `scale` says so."""

    def __init__(self, bias: float, scale: int) -> None:
        super().__init__()
        self.bias, self.scale = bias, scale

    def forward(self, image: Tensor) -> Tensor:
        x = image.float() / 60
        scores = torch.cat([x[:, :1] + self.bias, x[:, 1:2], x[:, 2:3], x[:, :1] - x[:, 3:4], x[:, 3:4]], 1)
        return scores.repeat_interleave(self.scale, 2).repeat_interleave(self.scale, 3)


class Fused(nn.Module):
    """Colours, and radar on a grid twice as coarse."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.bias = bias

    def forward(self, image: Tensor, radar: Tensor) -> Tensor:
        x, coarse = image.float() / 60, radar.repeat_interleave(2, 2).repeat_interleave(2, 3)
        own = [x[:, :1] + self.bias + coarse[:, :1], x[:, 1:2], x[:, 2:3], x[:, :1] - x[:, 3:4], x[:, 3:4]]
        return torch.cat(own, 1)


COLOURS = {"bands": ["red", "green", "blue", "nir"], "dtypes": ["uint8"], "fill": [90, 90, 90, 90]}

RADAR = {
    "name": "radar",
    "bands": ["VV"],
    "dtypes": ["float32"],
    "ratio": 2,
    "fill": [0.5],
    "missing": "fill",
}


def write_model(path: Path, network: nn.Module, scale: int, *groups: dict[str, Any], **changes: Any) -> Path:
    facts = {
        "name": path.stem,
        "groups": groups,
        "window": {"size": 64, "multiple": 4},
        "trim": 4,
        "feather": 4,
        "stride": 4,
        "output_scale": str(scale),
        "legend": "landcover5",
        "trained_prior": [0.2] * 5,
    }
    write_torchscript(torch.jit.script(network), ModelCard.model_validate(facts | changes), path)
    return path


@dataclass(frozen=True)
class Place:
    """Imagery, labels and networks; the map has two blocks."""

    folder: Path
    cells: tuple[int, int] = (66, 17)
    """(y, x) of 8 x 8 m, of one class each."""

    @property
    def finer(self) -> Place:
        """The same for networks of five times as fine a map."""
        return replace(self, cells=(15, 9))

    def image(self, day: str = "20240501", seed: int = 0) -> Path:
        path = self.folder / f"a_{day}.tif"
        values = np.random.default_rng(seed).integers(30, 220, (4, *self.cells)).repeat(8, 1).repeat(8, 2)
        return path if path.exists() else write_scene(path, values.shape[1:], values=values)

    def clouds(self, day: str, first: int) -> Path:
        path, (rows, cols) = self.folder / f"a_{day}_SCL.tif", self.cells
        values = np.full((1, 8 * rows, 8 * cols), 4)
        values[:, first : first + 40, first : first + 30] = 9
        return write_scene(path, values.shape[1:], 1, values=values, descriptions=("SCL",))

    def radar(self) -> Path:
        rows, cols = self.cells
        values = np.random.default_rng(3).random((1, 4 * rows, 4 * cols))
        at = Affine(2, 0, 500_000, 0, -2, 5_800_000)
        return write_scene(
            self.folder / "a_radar.tif", values.shape[1:], 1, values=values, dtype="float32", transform=at,
            descriptions=("VV",),
        )  # fmt: skip

    def labels(self) -> Path:
        """Cells of 8 m; some are not known."""
        values = np.random.default_rng(4).integers(0, 6, (1, *self.cells))
        return write_scene(
            self.folder / "labels.tif", self.cells, 1, values=values, nodata=0, descriptions=("labels",),
            transform=Affine(8, 0, 500_000, 0, -8, 5_800_000),
        )  # fmt: skip

    def model(self, name: str, bias: float, scale: int = 1, **changes: Any) -> str:
        path = self.folder / f"{name}.pt"
        return str(write_model(path, Colours(bias, scale), scale, COLOURS, **changes))

    def fused(self, name: str, bias: float) -> str:
        return str(write_model(self.folder / f"{name}.pt", Fused(bias), 1, COLOURS, RADAR))


Case = Callable[[Place], dict[str, Any]]
"""What a map is asked for, beside where it goes."""

EVERY = ("probabilities", "entropy", "second", "margin")


def two_turned_with_labels(place: Place) -> dict[str, Any]:
    return {
        "files": (place.image(),),
        "model": (place.model("one", 0), f"{place.model('two', 2)}=0.5"),
        "tta": "flips",
        "labels": LabelRequest((place.labels(),), "landcover5"),
        "layers": (*EVERY, "disagreement"),
    }


def two_on_a_finer_grid(place: Place) -> dict[str, Any]:
    place = place.finer
    return {
        "files": (place.image(),),
        "model": (place.model("one", 0, 5), place.model("two", 2, 5)),
        "tta": "d4",
        "layers": ("disagreement",),
    }


def one_on_a_finer_grid_turned_with_labels(place: Place) -> dict[str, Any]:
    place = place.finer
    return {
        "files": (place.image(),),
        "model": (place.model("one", 0, 5),),
        "tta": "flips",
        "labels": LabelRequest((place.labels(),), "landcover5", 0.8),
        "layers": ("entropy",),
    }


def two_of_two_groups_turned(place: Place) -> dict[str, Any]:
    return {
        "files": (place.image(), place.radar()),
        "model": (place.fused("one", 0), place.fused("two", 2)),
        "tta": "d4",
        "labels": LabelRequest((place.labels(),), "landcover5"),
        "layers": ("disagreement",),
    }


def two_whose_second_group_is_missing(place: Place) -> dict[str, Any]:
    return {
        "files": (place.image(),),
        "model": (place.fused("one", 0), place.fused("two", 2)),
        "tta": "flips",
        "layers": EVERY,
    }


def dates_by_two_with_labels(place: Place) -> dict[str, Any]:
    dates = ("20240501", "20240702")
    return {
        "files": (*(place.image(day, k) for k, day in enumerate(dates)),
                  *(place.clouds(day, 30 * k) for k, day in enumerate(dates))),
        "laying": Laying(composite="mean-probability"),
        "masking": Masking(("scl",)),
        "model": (place.model("one", 0), place.model("two", 2)),
        "tta": "flips",
        "labels": LabelRequest((place.labels(),), "landcover5"),
        "layers": ("disagreement", "probabilities"),
    }  # fmt: skip


def dates_on_a_finer_grid(place: Place) -> dict[str, Any]:
    place = place.finer
    return {
        "files": (place.image(), place.image("20240702", 1), place.clouds("20240702", 20),
                  place.clouds("20240501", 90)),
        "laying": Laying(composite="mean-probability"),
        "masking": Masking(("scl",)),
        "model": (place.model("one", 0, 5),),
    }  # fmt: skip


def several_classes_a_pixel(place: Place) -> dict[str, Any]:
    names = (("one", 0), ("two", 2))
    return {
        "files": (place.image(),),
        "model": tuple(place.model(name, bias, task="labels", trained_prior=()) for name, bias in names),
        "tta": "d4",
        "layers": ("disagreement", "probabilities"),
    }


CASES: tuple[Case, ...] = (
    two_turned_with_labels,
    two_on_a_finer_grid,
    one_on_a_finer_grid_turned_with_labels,
    two_of_two_groups_turned,
    two_whose_second_group_is_missing,
    dates_by_two_with_labels,
    dates_on_a_finer_grid,
    several_classes_a_pixel,
)

FEW = (one_on_a_finer_grid_turned_with_labels, two_of_two_groups_turned)


def request_of(asked: dict[str, Any], out: Path, **engine: Any) -> MapRequest:
    rest = dict(asked)
    imagery = {name: rest.pop(name) for name in ("files", "laying", "masking") if name in rest}
    options = {"device": "cpu", "window": 128, "precision": "fp32", "threads": 1} | engine
    return MapRequest(Imagery(**imagery), out, engine=EngineOptions(**options), **rest)


def pixels(folder: Path) -> dict[str, NDArray[np.uint8]]:
    found = {}
    for path in sorted(folder.glob("*.tif")):
        with rasterio.open(path) as file:
            found[path.name] = file.read()
    return found


def same(one: Path, other: Path) -> None:
    first, second = pixels(one), pixels(other)
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def stopped_and_resumed(request: MapRequest) -> int:
    """Blocks that were there when a run went on that had been stopped after its first one."""

    def end(_block: Block) -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        map_scene(request, Watch(advanced=end))
    before: list[int] = []
    map_scene(request, Watch(started=lambda _plan, done: before.append(done)))
    return before[0]


def write_region(place: Place, asked: dict[str, Any]) -> Path:
    """The same as a region of one scene."""

    def listed(values: Any) -> str:
        return str([str(value) for value in values])

    labels, laying, masking = (asked.get(name) for name in ("labels", "laying", "masking"))
    text = f'name = "r"\nout = "products"\nmodel = {listed(asked["model"])}\n'
    text += f'tta = "{asked.get("tta", "none")}"\nlayers = {listed(asked.get("layers", ()))}\n'
    text += f'[[scenes]]\nfiles = {listed(asked["files"])}\nname = "all"\n'
    text += '[engine]\nwindow = 128\nprecision = "fp32"\nthreads = 1\n'
    if labels is not None:
        trust = "" if labels.trust is None else f"trust = {labels.trust}\n"
        text += f'[labels]\nfiles = {listed(labels.files)}\nlegend = "{labels.legend}"\n{trust}'
    if laying is not None:
        text += f'[imagery.laying]\ncomposite = "{laying.composite}"\n'
    if masking is not None:
        text += f"[imagery.masking]\nrules = {listed(masking.rules)}\n"
    path = place.folder / "region.toml"
    path.write_text(text)
    return path


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "MAX_BLOCK_HEIGHT", fit.CHUNK)
    monkeypatch.setattr(fit, "MAX_BLOCK_WIDTH", fit.CHUNK)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_however_a_run_goes_its_pixels_are_the_same(case: Case, tmp_path: Path) -> None:
    place = Place(tmp_path)
    asked = case(place)
    straight = replace(request_of(asked, tmp_path / "straight"), product=ProductOptions(verify_seams=True))
    done = map_scene(straight)
    assert len(np.unique(pixels(tmp_path / "straight")["landcover.tif"])) > 2
    seams = done.run.seams
    assert seams is not None and seams.pixels > 0 and (seams.at_seams, seams.interior) == (0, 0)
    assert stopped_and_resumed(request_of(asked, tmp_path / "resumed")) > 0
    same(tmp_path / "resumed", tmp_path / "straight")
    report = run_region(read_region(write_region(place, asked)))
    assert report.exit_code == 0, report.facts()
    same(tmp_path / "products" / "maps" / "all", tmp_path / "straight")
    if asked.get("tta", "none") != "none":
        plain = {name: value for name, value in asked.items() if name != "tta"} | {"layers": ()}
        map_scene(request_of(plain, tmp_path / "plain"))
        turned, unturned = (pixels(tmp_path / name)["landcover.tif"] for name in ("straight", "plain"))
        assert (turned != unturned).mean() < 1e-3  # the mean of equal numbers rounds


def test_workers_map_the_same(tmp_path: Path) -> None:
    asked = dates_by_two_with_labels(Place(tmp_path))
    map_scene(request_of(asked, tmp_path / "here"))
    map_scene(request_of(asked, tmp_path / "there", workers=2))
    same(tmp_path / "there", tmp_path / "here")


def others(form: Form, cases: Sequence[Case], quick: Sequence[Case] = ()) -> list[Any]:
    """Cases in a form, those that are not quick marked as slow."""
    here = pytest.mark.skipif(form not in forms_here(), reason=f"{form} is not here")
    slow = [() if case in quick else (pytest.mark.slow,) for case in cases]
    return [
        pytest.param(form, case, id=f"{form}-{case.__name__}", marks=(here, *more))
        for case, more in zip(cases, slow, strict=True)
    ]


@pytest.mark.parametrize(("form", "case"), others("openvino", CASES, FEW) + others("aotinductor", FEW))
def test_in_another_form_a_run_may_go_as_it_likes_too(form: Form, case: Case, tmp_path: Path) -> None:
    asked = case(Place(tmp_path))
    map_scene(request_of(asked, tmp_path / "by-torch"))
    done = map_scene(request_of(asked, tmp_path / "straight", form=form))
    assert (done.run.machine.form, done.run.given.plan["form"]) == (form, form)
    assert form in done.run.given.versions
    assert stopped_and_resumed(request_of(asked, tmp_path / "resumed", form=form)) > 0
    same(tmp_path / "resumed", tmp_path / "straight")
    ours, torchs = (pixels(tmp_path / name)["landcover.tif"] for name in ("straight", "by-torch"))
    assert (ours != torchs).mean() < 1e-3


@pytest.mark.parametrize(
    ("form", "case"),
    others("openvino", [dates_by_two_with_labels]) + others("aotinductor", [dates_by_two_with_labels]),
)
def test_workers_map_the_same_in_another_form(form: Form, case: Case, tmp_path: Path) -> None:
    asked = case(Place(tmp_path))
    map_scene(request_of(asked, tmp_path / "here", form=form))
    map_scene(request_of(asked, tmp_path / "there", form=form, workers=2))
    same(tmp_path / "there", tmp_path / "here")


@pytest.fixture
def tensorrt_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT's form with a processor in its place."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    version, gpu = forms._version, {"onnxruntime-gpu": "1.2", "tensorrt": "11"}
    monkeypatch.setattr(forms, "_version", lambda name: gpu.get(name) or version(name))
    monkeypatch.setattr(forms, "_why_not", lambda *_: None)
    processor = TensorRt(provider=lambda *_: ("CPUExecutionProvider", {}))
    monkeypatch.setitem(predictor._CONVERTED, "tensorrt", processor)  # type: ignore[arg-type]  # a dict


@pytest.fixture
def cudnn_here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The form of CUDA devices, with its operators by a processor."""
    monkeypatch.setattr(forms, "_why_no_cudnn", lambda _device: None)
    with cudnn_by_processor():
        yield


@pytest.mark.usefixtures("cudnn_here")
@pytest.mark.parametrize("case", FEW, ids=lambda case: case.__name__)
def test_as_cudnn_would_a_run_may_go_as_it_likes_too(case: Case, tmp_path: Path) -> None:
    asked = case(Place(tmp_path))
    map_scene(request_of(asked, tmp_path / "by-torch"))
    done = map_scene(request_of(asked, tmp_path / "straight", form="cudnn"))
    assert (done.run.machine.form, done.run.given.plan["form"]) == ("cudnn", "cudnn")
    assert stopped_and_resumed(request_of(asked, tmp_path / "resumed", form="cudnn")) > 0
    same(tmp_path / "resumed", tmp_path / "straight")
    ours, torchs = (pixels(tmp_path / name)["landcover.tif"] for name in ("straight", "by-torch"))
    assert (ours != torchs).mean() < 0.01


@pytest.mark.usefixtures("tensorrt_here")
@pytest.mark.parametrize("case", FEW, ids=lambda case: case.__name__)
def test_as_tensorrt_would_a_run_may_go_as_it_likes_too(case: Case, tmp_path: Path) -> None:
    asked = case(Place(tmp_path))
    map_scene(request_of(asked, tmp_path / "by-torch"))
    other = {"form": "tensorrt", "precision": "fp16"}
    done = map_scene(request_of(asked, tmp_path / "straight", **other))
    assert (done.run.machine.form, done.run.given.plan["precision"]) == ("tensorrt", "fp16")
    assert done.run.given.versions["onnxruntime"] == "1.2"
    assert stopped_and_resumed(request_of(asked, tmp_path / "resumed", **other)) > 0
    same(tmp_path / "resumed", tmp_path / "straight")
    ours, torchs = (pixels(tmp_path / name)["landcover.tif"] for name in ("straight", "by-torch"))
    assert (ours != torchs).mean() < 0.01
