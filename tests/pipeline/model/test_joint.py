"""Several networks, and one that is turned, as one map."""

import shutil
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from citycover.errors import ConfigError, ModelError, StoppedError
from citycover.model import predictor
from citycover.model.archive import ModelFile, read_model_file
from citycover.model.builtin import builtin_path
from citycover.model.card import ModelCard
from citycover.model.converted import Infer, Runtime, Source, Stop
from citycover.model.ensemble import JointPredictor
from citycover.model.form import Form
from citycover.model.joint import TURNS, MapModel, Member, Turns, check_map_model, join, read_map_model
from citycover.model.loading import load_predictor
from citycover.model.network import write_torchscript
from citycover.model.precision import Precision
from citycover.model.predictor import FunctionPredictor, ModelPredictor

CPU = torch.device("cpu")


class Sloped(nn.Module):
    """A network that is no mirror of itself: what a pixel is depends on what lies to its right and below."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.bias = bias

    def forward(self, image: Tensor) -> Tensor:
        x = image[:, :1].float()
        right = torch.roll(x, -1, 3) - x
        below = torch.roll(x, -2, 2) - x
        return torch.cat([0.1 * right + self.bias, 0.05 * below, 0.01 * x], 1)


def card(**changes: object) -> ModelCard:
    facts = {
        "name": "sloped",
        "groups": [{"bands": ["red", "green"], "dtypes": ["uint8"]}],
        "window": {"size": 64, "multiple": 8},
        "trim": 4,
        "feather": 8,
        "legend": {
            "name": "abc",
            "classes": [{"id": k, "name": n, "color": f"#00000{k}"} for k, n in enumerate("abc", 1)],
        },
    }
    return ModelCard.model_validate(facts | changes)


def saved(path: Path, network: nn.Module, **changes: object) -> ModelFile:
    write_torchscript(torch.jit.script(network), card(**changes), path)
    return read_model_file(path)


def test_one_network_is_itself(tmp_path: Path) -> None:
    file = saved(tmp_path / "a.pt", Sloped(0))
    model = read_map_model([file.path])
    assert model.alone and model.sha256 == file.sha256 and model.card == file.card and model.path == file.path
    assert read_map_model([f"{file.path}=3"]) == model


@pytest.mark.parametrize("turns", TURNS)
def test_the_mean_of_probabilities_by_weight_and_turn(tmp_path: Path, turns: str) -> None:
    files = [saved(tmp_path / f"{k}.pt", Sloped(k)) for k in range(2)]
    model = join([(files[0], 1.0), (files[1], 3.0)], turns)
    windows = torch.randint(0, 255, (2, 2, 64, 64), dtype=torch.uint8)
    found = load_predictor(model, CPU)([windows]).numpy()
    wanted = np.zeros_like(found)
    views = {"none": 1, "flips": 4, "d4": 8}[turns]
    for k, weight in ((0, 0.25), (1, 0.75)):
        for view in range(views):

            def turn(a: Tensor, view: int = view) -> Tensor:
                a = a.transpose(2, 3) if view & 4 else a
                return a.flip([axis for axis, bit in ((3, 1), (2, 2)) if view & bit])

            def back(a: Tensor, view: int = view) -> Tensor:
                a = a.flip([axis for axis, bit in ((3, 1), (2, 2)) if view & bit])
                return a.transpose(2, 3) if view & 4 else a

            scores = Sloped(k)(turn(windows))
            wanted += weight / views * back(torch.softmax(scores, 1)).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert model.card.activation == "probabilities" and len({model.sha256, *(f.sha256 for f in files)}) == 3


def entropy_of(p: np.ndarray, exclusive: bool) -> np.ndarray:
    """(n, y, x) of (n, c, y, x), 0 to 1; by numpy's logarithms."""
    p = np.clip(p.astype(float), 1e-30, 1 - 1e-15)
    if exclusive:
        return -(p * np.log(p)).sum(1) / np.log(p.shape[1])
    return -(p * np.log2(p) + (1 - p) * np.log2(1 - p)).mean(1)


@pytest.mark.parametrize("task", ["classes", "labels"])
@pytest.mark.parametrize("turns", ["none", "flips"])
def test_disagreement_is_the_divergence_of_what_members_say(tmp_path: Path, turns: str, task: str) -> None:
    files = [saved(tmp_path / f"{k}.pt", Sloped(3 * k), task=task) for k in range(2)]
    weights, views = (0.25, 0.75), [(), (3,), (2,), (2, 3)][: 1 if turns == "none" else 4]
    windows = torch.randint(0, 255, (2, 2, 64, 64), dtype=torch.uint8)
    predictor = load_predictor(join(list(zip(files, (1.0, 3.0), strict=True)), turns), CPU)
    plain, found = predictor([windows]), predictor.with_disagreement()([windows]).numpy()
    np.testing.assert_array_equal(found[:, :3], plain.numpy())
    exclusive, single = task == "classes", 0.0
    for k, weight in enumerate(weights):
        for axes in views:
            scores = Sloped(3 * k)(windows.flip(axes)).flip(axes)
            member = torch.softmax(scores, 1) if exclusive else torch.sigmoid(scores)
            single = single + weight / len(views) * entropy_of(member.numpy(), exclusive)
    wanted = entropy_of(plain.numpy(), exclusive) - single
    if exclusive:
        wanted *= np.log(3) / np.log(min(3, 2 * len(views)))
    assert np.abs(found[:, 3] - wanted).max() < 0.004  # a step of the layer
    assert wanted.max() > 0.05 and found[:, 3].min() >= 0


def test_members_that_say_the_same_agree_and_certain_ones_of_other_classes_do_not() -> None:
    def certain(*best: int) -> JointPredictor:
        def member(k: int) -> FunctionPredictor:
            scores = torch.full((1, 3, 4, 4), -90.0).index_fill(1, torch.tensor([k]), 90.0)
            return FunctionPredictor(card(), lambda _image: scores)

        ranks = torch.arange(3)
        parts = tuple((member(k), 1 / len(best), ranks) for k in best)
        joint = card(activation="probabilities")
        return JointPredictor(joint, CPU, parts, ((False, ()),)).with_disagreement()

    image = [torch.zeros(1, 2, 4, 4, dtype=torch.uint8)]
    for best, wanted in (((1, 1), 0), ((0, 1), 1), ((0, 1, 2), 1), ((2, 2, 2), 0), ((0, 0, 1, 1), 0.631)):
        assert certain(*best)(image)[:, 3].numpy() == pytest.approx(wanted, abs=0.002), best


def test_turned_by_d4_a_network_is_the_same_on_every_turn_of_a_scene(tmp_path: Path) -> None:
    model = read_map_model([saved(tmp_path / "a.pt", Sloped(0)).path], "d4")
    predictor = load_predictor(model, CPU)
    windows = torch.randint(0, 255, (1, 2, 64, 64), dtype=torch.uint8)
    straight = predictor([windows])
    turned = predictor([windows.transpose(2, 3).flip(3)])
    torch.testing.assert_close(turned.flip(3).transpose(2, 3), straight, atol=1e-6, rtol=0)


def test_windows_that_are_not_square_are_turned_too(tmp_path: Path) -> None:
    model = read_map_model([saved(tmp_path / "a.pt", Sloped(0)).path], "d4")
    assert load_predictor(model, CPU)([torch.zeros(1, 2, 32, 64, dtype=torch.uint8)]).shape == (1, 3, 32, 64)


def test_finer_classes_join_the_coarser_ones_of_the_first(tmp_path: Path) -> None:
    coarse = {
        "name": "two",
        "classes": [{"id": 7, "name": "x", "color": "#000007"}, {"id": 9, "name": "y", "color": "#000009"}],
        "remap": {"abc": {1: 7, 2: 9, 3: 7}},
    }

    class Two(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image[:, :2].float() * 0.01

    first = saved(tmp_path / "two.pt", Two(), name="two", legend=coarse)
    other = saved(tmp_path / "abc.pt", Sloped(1))
    model = join([(first, 1.0), (other, 1.0)])
    windows = torch.randint(0, 255, (1, 2, 64, 64), dtype=torch.uint8)
    found = load_predictor(model, CPU)([windows])
    fine = torch.softmax(Sloped(1)(windows), 1)
    own = torch.softmax(Two()(windows), 1)
    torch.testing.assert_close(found[:, 0], 0.5 * (own[:, 0] + fine[:, 0] + fine[:, 2]), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.sum(1), torch.ones(1, 64, 64), atol=1e-5, rtol=0)
    with pytest.raises(ModelError, match="cannot be averaged"):
        join([(other, 1.0), (first, 1.0)])


def test_the_joint_card_is_what_all_bear(tmp_path: Path) -> None:
    one = saved(
        tmp_path / "1.pt", Sloped(0), trim=4, feather=8, stride=4, gsd=[0.5, 2], licence="MIT",
        label_noise=0.2, trained_prior=[0.2, 0.3, 0.5],
    )  # fmt: skip
    two = saved(
        tmp_path / "2.pt", Sloped(1), name="other", trim=6, feather=6, stride=6, gsd=[1, 4], precision="fp32",
        window={"size": 96, "multiple": 12, "maximum": 480}, licence="BSD", trained_prior=[0.4, 0.1, 0.5],
    )  # fmt: skip
    joint = join([(one, 1.0), (two, 1.0)]).card
    assert (joint.trim, joint.feather, joint.stride) == (12, 12, 12)
    assert (joint.window.size, joint.window.multiple, joint.window.maximum) == (48, 24, 480)
    assert joint.gsd == (1, 2) and joint.precision == "fp32" and joint.licence == "MIT, BSD"
    assert joint.trained_prior == pytest.approx((0.3, 0.2, 0.5)) and joint.label_noise is None
    assert joint.name == "sloped + other"


def test_gaps_are_filled_with_the_mean_of_what_each_would_be_filled_with(tmp_path: Path) -> None:
    files = [
        saved(
            tmp_path / f"{k}.pt",
            Sloped(k),
            groups=[{"bands": ["red", "green"], "dtypes": ["uint8"], "fill": [10 * k, 40]}],
        )
        for k in range(2)
    ]
    assert join([(files[0], 1.0), (files[1], 3.0)]).card.groups[0].fills == pytest.approx((7.5, 40))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"groups": [{"bands": ["red", "nir"], "dtypes": ["uint8"]}]}, "differ in bands"),
        ({"output_scale": "5", "trim": 4, "feather": 8}, "differ in scale of output"),
        (
            {"groups": [{"bands": ["red", "green"], "dtypes": ["float32"]}]},
            "cannot be averaged: groups.0.dtypes",
        ),
        ({"task": "labels"}, "differ in kind of classes"),
        (
            {"window": {"size": 96, "fixed": True}, "trim": 4, "feather": 8},
            "windows of 64, 96 px and no others",
        ),
    ],
)
def test_networks_that_cannot_be_averaged(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    fixed = {"window": {"size": 64, "fixed": True}} if "window" in changes else {}
    one, two = saved(tmp_path / "1.pt", Sloped(0), **fixed), saved(tmp_path / "2.pt", Sloped(0), **changes)
    with pytest.raises(ModelError, match=said):
        join([(one, 1.0), (two, 1.0)])


@pytest.mark.parametrize(
    ("names", "turns", "said"),
    [
        (["spectral-rgb=0"], "none", "'0' is no weight; give one above 0, such as spectral-rgb=0.5"),
        (["spectral-rgb=much"], "none", "'much' is no weight"),
        (["spectral-rgb=-0.5"], "none", "'-0.5' is no weight"),
        (["spectral-rgb=inf"], "none", "'inf' is no weight"),
        (["spectral-rgb"], "d8", "--tta takes none, flips, d4"),
        (["spectral-rgb"] * 33, "none", "33 models; a map is made of 32 at most"),
    ],
)
def test_words_that_mean_no_model(names: list[str], turns: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_map_model(names, turns)


def test_a_file_whose_name_has_an_equals_sign_is_itself(tmp_path: Path) -> None:
    file = saved(tmp_path / "lr=2.pt", Sloped(0))
    assert read_map_model([file.path]).members[0].path == file.path


def test_a_file_whose_name_has_an_equals_sign_may_be_missing(tmp_path: Path) -> None:
    for name in ("lr=2.pt", "lr=2.pt=0.5", "seed=3/model.pt2"):
        with pytest.raises(ModelError, match=r"there is no model '.*=(2|3/model)\.pt2?'"):
            read_map_model([str(tmp_path / name)])


def test_one_hash_is_of_one_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = read_map_model(["spectral-rgb", "spectral-rgb=2"])
    with pytest.raises(ConfigError, match="of one model file, and there are 2"):
        check_map_model(model, model.members[0].sha256)
    trusted = tmp_path / "list"
    trusted.write_text("0" * 64)
    monkeypatch.setenv("CITYCOVER_TRUSTED_MODELS", str(trusted))
    with pytest.raises(ModelError, match="not trusted"):
        check_map_model(model, None)
    trusted.write_text(read_model_file(builtin_path("spectral-rgb")).sha256)
    check_map_model(model, None)


def test_equal_maps_share_a_loaded_network() -> None:
    one, two = (read_map_model(["spectral-rgb"], turns) for turns in ("flips", "flips"))
    assert one == two and hash(one) == hash(two) and one != read_map_model(["spectral-rgb"])
    assert isinstance(one, MapModel) and isinstance(one.members[0], Member)


def test_the_networks_of_the_last_map_are_kept_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (read_map_model([saved(tmp_path / f"{k}.pt", Sloped(k)).path]) for k in range(2))
    kept, again = load_predictor(first, CPU), load_predictor(read_map_model([tmp_path / "0.pt"]), CPU)
    assert isinstance(kept, ModelPredictor) and isinstance(again, ModelPredictor)
    assert again.network is kept.network
    gone, load, there = weakref.ref(kept.network), ModelPredictor.load, []
    del kept, again

    def loading(*given: object, **named: object) -> ModelPredictor:
        there.append(gone())
        return load(*given, **named)

    monkeypatch.setattr(ModelPredictor, "load", loading)
    load_predictor(second, CPU)
    assert there == [None], "memory of a device holds one of them"
    saved(tmp_path / "1.pt", Sloped(2))
    changed = load_predictor(read_map_model([tmp_path / "1.pt"]), CPU)
    windows = torch.randint(0, 255, (1, 2, 64, 64), dtype=torch.uint8)
    torch.testing.assert_close(changed([windows]), Sloped(2)(windows))


@dataclass
class Making:
    """A runtime by which every score is 0.5; it tells what could end each making."""

    made: list[Stop] = field(default_factory=list)
    ended: Stop = None
    """Is set while something is made."""
    name: str = "Making"
    form: Form = "openvino"

    def facts(self, device: torch.device, precision: Precision) -> dict[str, Any]:
        return {}

    def make(
        self, source: Source, windows: Sequence[Tensor], precision: Precision, folder: Path, stop: Stop
    ) -> None:
        self.made.append(stop)
        if self.ended is not None:
            self.ended.set()
        if stop is not None and stop.is_set():
            raise StoppedError

    def load(self, folder: Path, windows: Sequence[Tensor], precision: Precision) -> Infer:
        return lambda given: torch.full((len(given[0]), 3, *given[0].shape[2:]), 0.5)


_: type[Runtime] = Making


@pytest.mark.parametrize("turns", ["none", "flips"])
def test_a_stop_is_of_who_asks_and_what_was_made_is_kept_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turns: Turns
) -> None:
    ended, running, later = threading.Event(), threading.Event(), threading.Event()
    runtime = Making(ended=ended)
    monkeypatch.setenv("CITYCOVER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(predictor._CONVERTED, "openvino", runtime)
    monkeypatch.setattr(predictor, "check_form", lambda *_: None)
    model = read_map_model([saved(tmp_path / "0.pt", Sloped(1)).path], turns)
    windows = [torch.randint(0, 255, (1, 2, 64, 64), dtype=torch.uint8)]
    with pytest.raises(StoppedError):
        load_predictor(model, CPU, ended).at("fp32", "openvino")(windows)
    load_predictor(model, CPU, running).at("fp32", "openvino")(windows)
    shutil.rmtree(tmp_path / "cache")
    load_predictor(model, CPU, later).at("fp32", "openvino")(windows)
    assert runtime.made == [ended, running]


def test_maps_in_several_threads_take_turns_and_who_waits_hears_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They share what is kept, of which most runtimes serve one thread at a time."""
    busy, inside, goes_on = threading.Lock(), threading.Event(), threading.Event()

    class One(Making):
        def load(self, folder: Path, windows: Sequence[Tensor], precision: Precision) -> Infer:
            infer = super().load(folder, windows, precision)

            def alone(given: Sequence[Tensor]) -> Tensor:
                assert busy.acquire(blocking=False), "two at a time"
                inside.set()
                goes_on.wait()
                busy.release()
                return infer(given)

            return alone

    monkeypatch.setenv("CITYCOVER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(predictor._CONVERTED, "openvino", One())
    monkeypatch.setattr(predictor, "check_form", lambda *_: None)
    model = read_map_model([saved(tmp_path / "0.pt", Sloped(1)).path])
    windows = [torch.randint(0, 255, (1, 2, 64, 64), dtype=torch.uint8)]

    def scores(stop: Stop) -> Tensor:
        return load_predictor(model, CPU, stop).at("fp32", "openvino")(windows)

    stops = [threading.Event() for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        try:
            running = [pool.submit(scores, stops[0])]
            assert inside.wait(60)
            running += [pool.submit(scores, stop) for stop in stops[1:]]
            stops[2].set()
            with pytest.raises(StoppedError):
                running[2].result(20)
        finally:
            goes_on.set()
        assert running[0].result(60).equal(running[1].result(60))
