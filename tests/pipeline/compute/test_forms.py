"""Which form and precision a run takes: as asked for, as known, or as tried within a share of the run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from making import cnn, make_card, make_scene, plan_of
from torch import Tensor

from citycover.compute import forms, verdicts
from citycover.compute.cluster.terms import Terms, local_versions
from citycover.compute.cluster.worker import why_unfit
from citycover.compute.forms import choose_lane, lanes_asked, trial_side
from citycover.compute.verdicts import FASTEST, Verdicts, best_lane
from citycover.errors import MachineError
from citycover.model import bench, gate
from citycover.model.bench import BenchRow, Lane
from citycover.model.card import ModelCard
from citycover.model.form import FORMS
from citycover.model.predictor import FunctionPredictor

CPU = torch.device("cpu")
EXACT, REDUCED = Lane(), Lane("torchscript", "bf16")
OTHER, BOTH = Lane("openvino", "fp32"), Lane("openvino", "bf16")
COMPILED, COMPILED_REDUCED = Lane("aotinductor", "fp32"), Lane("aotinductor", "bf16")
WAITS = {"torchscript": 0.0, "cudnn": 5.0, "openvino": 2.0, "aotinductor": 15.0, "tensorrt": 30.0}
ALL = (EXACT, REDUCED, OTHER, BOTH, COMPILED, COMPILED_REDUCED)


@pytest.fixture(autouse=True)
def everything_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(metadata, "version", lambda _name: "3.0")
    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.setattr(gate, "fast_precision", lambda _device: "bf16")
    monkeypatch.setenv("CITYCOVER_CACHE", str(tmp_path / "cache"))


def predictor(precision: str = "any") -> FunctionPredictor:
    return FunctionPredictor(make_card(64, 4, 8, precision=precision), cnn)


def waiting(lane: Lane) -> float:
    """Seconds that a form takes at least to be made ready."""
    return WAITS[lane.form]


@dataclass(frozen=True)
class Made:
    """A function of which forms are made in so many seconds."""

    card: ModelCard
    function: Callable[..., Tensor]
    waits: Mapping[str, float]
    form: str = "torchscript"
    device: torch.device = CPU

    def at(self, _precision: str, form: str = "torchscript") -> Made:
        return replace(self, form=form)

    def setting_up(self, _shapes: object) -> float:
        return self.waits[self.form]

    def forget(self) -> None:
        pass

    def __call__(self, given: Sequence[Tensor]) -> Tensor:
        return self.function(*given)


def row(lane: Lane, speed: float, *, passes: bool = True, first: float = 0.0) -> BenchRow:
    return BenchRow(
        lane.form, lane.precision, float(speed), first, 0.0, passes,
        processor_s=1 / speed, first_processor_s=first,
    )  # fmt: skip


def test_what_may_be_taken_is_what_is_asked_for_and_what_the_card_bears() -> None:
    assert lanes_asked("auto", "auto", predictor()) == ALL
    assert lanes_asked("auto", "auto", predictor("fp32")) == (EXACT, OTHER, COMPILED)
    assert lanes_asked("auto", "bf16", predictor("fp32")) == (REDUCED, BOTH, COMPILED_REDUCED)
    assert lanes_asked("torchscript", "auto", predictor()) == (EXACT, REDUCED)
    assert lanes_asked("openvino", "auto", predictor()) == (OTHER, BOTH)
    assert lanes_asked("openvino", "bf16", predictor()) == (BOTH,)


@given(
    speeds=st.dictionaries(st.sampled_from(ALL), st.floats(0.1, 100), min_size=0),
    passing=st.sets(st.sampled_from(ALL)),
    mpx=st.floats(0.1, 10_000),
    asked=st.permutations(ALL).map(lambda lanes: tuple(lanes[:3])),
)
def test_another_form_is_taken_only_where_it_is_clearly_faster_and_passes(
    speeds: dict[Lane, float], passing: set[Lane], mpx: float, asked: tuple[Lane, ...]
) -> None:
    rows = [row(lane, speed, passes=lane in passing) for lane, speed in speeds.items()]
    best = best_lane(rows, asked, mpx, waiting)
    assert best in asked
    if best != asked[0]:
        assert best in passing and asked[0] in speeds

        def wall(lane: Lane) -> float:
            return mpx / speeds[lane] + waiting(lane)

        assert wall(best) < FASTEST * wall(asked[0])


def test_setting_up_counts_so_that_a_small_run_stays() -> None:
    rows = [row(EXACT, 1), row(BOTH, 10, first=6.0)]
    assert best_lane(rows, (EXACT, BOTH), 5, waiting) == EXACT
    assert best_lane(rows, (EXACT, BOTH), 50, waiting) == BOTH
    busy = [replace(rows[0], mpx_per_s=0.01), replace(rows[1], mpx_per_s=0.1)]
    assert best_lane(busy, (EXACT, BOTH), 5, waiting) == EXACT, "a busy machine makes setting up no cheaper"
    spinning = replace(rows[0], mpx_per_s=10.0)
    assert best_lane([spinning, rows[1]], (EXACT, BOTH), 50, waiting) == EXACT, (
        "nor is what the clock does not see"
    )
    shared = [row(EXACT, 1), row(OTHER, 1, first=6.0), row(BOTH, 10, first=0.2)]
    assert best_lane(shared, ALL, 5, waiting) == EXACT, "the second of a form is set up with the first"
    assert best_lane(shared, ALL, 50, waiting) == BOTH
    noisy = replace(row(REDUCED, 2), mpx_per_s=12.0)
    assert best_lane([row(EXACT, 1), noisy, row(BOTH, 10)], ALL, 500, waiting) == BOTH, (
        "a clock alone decides nothing"
    )


def test_what_is_ready_for_the_windows_of_a_run_costs_its_loading_alone() -> None:
    ready = replace(row(BOTH, 10, first=6.0), again_s=1.0, again_processor_s=1.0)
    rows = [row(EXACT, 1), ready]
    assert best_lane(rows, (EXACT, BOTH), 5, waiting) == EXACT, "6 s until it is made, 5 s without it"
    assert best_lane(rows, (EXACT, BOTH), 5, lambda _: 0.0) == BOTH, "1 s until it is loaded, and 0.5 s"
    assert best_lane(rows, (EXACT, BOTH), 1.1, lambda _: 0.0) == EXACT, "1.1 s either way"


class Trials:
    """Stands for measuring: says what was asked of it."""

    def __init__(self, rows: Sequence[BenchRow]) -> None:
        self.rows, self.calls = tuple(rows), 0

    def __call__(self, _predictor: object, lanes: Sequence[Lane], *_: object) -> tuple[BenchRow, ...]:
        self.calls += 1
        return tuple(row for row in self.rows if row.lane in lanes)


def windows() -> list[list[Tensor]]:
    found = []
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        found.append([torch.randint(0, 255, (1, 3, 64, 64), dtype=torch.uint8, generator=generator)])
    return found


def chosen(lanes: Sequence[Lane], side: int, sha256: str = "a") -> Lane:
    return choose_lane(
        lanes, predictor(), plan_of(make_scene((side, side)), make_card(64, 4, 8)), sha256, windows
    )


def test_small_scenes_are_not_tried_and_large_ones_once(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = Trials([row(EXACT, 1), row(REDUCED, 2)])
    monkeypatch.setattr(forms, "bench", trials)
    two = (EXACT, REDUCED)
    assert chosen(two, 300) == EXACT and trials.calls == 0
    assert chosen(two, 3000) == REDUCED and trials.calls == 1
    assert chosen(two, 300) == REDUCED and trials.calls == 1, "known of this machine by now"
    assert chosen((REDUCED,), 3000) == REDUCED and chosen((EXACT, REDUCED), 3000, "b") == REDUCED
    assert trials.calls == 2, "another model is another question"


def test_trials_cost_a_small_share_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """By pixels; and by seconds where a runtime is set up, whatever the network's speed."""
    pushed: list[int] = []

    def counting(image: Tensor) -> Tensor:
        pushed.append(image[:, 0].numel())
        return cnn(image)

    network = Made(make_card(64, 4, 8), counting, dict.fromkeys(FORMS, 0.0))
    for lanes in ((EXACT, REDUCED), ALL):
        for side in (200, 800, 1500, 2500, 4000):
            plan, name = plan_of(make_scene((side, side)), make_card(64, 4, 8)), f"{side} {len(lanes)}"
            pushed.clear()
            choose_lane(lanes, network, plan, name, windows)
            assert sum(pushed) <= forms.TRIAL_SHARE * plan.windows * plan.window_pixels
    assert pushed, "the largest was tried"
    network = replace(network, waits={**dict.fromkeys(FORMS, 1e6), "torchscript": 0.0})
    tried: list[Lane] = []

    def trying(_predictor: object, _plan: object, lanes: Sequence[Lane], *_: object) -> tuple[BenchRow, ...]:
        tried.extend(lanes)
        return ()

    monkeypatch.setattr(forms, "try_lanes", trying)
    assert choose_lane((EXACT, OTHER, BOTH, COMPILED), network, plan, "slow", windows) == EXACT
    assert not tried, "setting up takes longer than the run"
    assert choose_lane(ALL, network, plan, "slow", windows) == EXACT
    assert tried == [EXACT, REDUCED], "those that need no setting up are tried"


def test_a_verdict_is_believed_only_of_what_it_was_found_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of(sha256: str = "a", side: int = 64) -> Verdicts:
        return Verdicts.of(sha256, [side], CPU)

    rows = (row(EXACT, 1), row(REDUCED, 2))
    assert of().add(rows) == rows and of().read() == rows
    assert of().add([row(REDUCED, 3)]) == (row(REDUCED, 3), row(EXACT, 1)) == of().read()
    assert not of("b").read() and not of(side=65).read()
    monkeypatch.setattr(metadata, "version", lambda _name: "4.0")
    assert not of().read(), "another runtime"
    monkeypatch.setattr(metadata, "version", lambda _name: "3.0")
    monkeypatch.setattr(verdicts, "device_facts", lambda _device: ["cpu", "another", ""])
    assert not of().read()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data | {"of": "{}"},
        lambda data: data | {"rows": [data["rows"][0] | {"mpx_per_s": "fast"}]},
        lambda data: data | {"rows": [data["rows"][0] | {"mpx_per_s": -1.0}]},
        lambda data: data | {"rows": [data["rows"][0] | {"processor_s": 0.0}]},
        lambda data: data | {"rows": [data["rows"][0] | {"form": "cuda"}]},
        lambda data: data | {"rows": [data["rows"][0] | {"passes": 1}]},
        lambda data: data | {"rows": [{}]},
        lambda data: data | {"rows": 3},
        lambda _data: [],
    ],
)
def test_a_damaged_verdict_is_no_verdict(damage: object, tmp_path: Path) -> None:
    found = Verdicts.of("a", [64], CPU)
    found.add((row(EXACT, 1),))
    (path,) = (tmp_path / "cache/verdicts").iterdir()
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))  # type: ignore[operator]
    assert found.read() == ()
    path.write_text("{")
    assert found.read() == ()


GPU_LANES = tuple(
    Lane(form, precision)
    for form in ("torchscript", "cudnn", "aotinductor", "tensorrt") for precision in ("fp32", "tf32", "bf16")
    if (form, precision) != ("tensorrt", "fp32")
)  # fmt: skip


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> list[list[Tensor]]:
    """A GPU that is not there: its batches are looked at instead of run."""
    batch, seen = forms._batch, []
    monkeypatch.setattr(bench, "fast_precisions", lambda _device: ("bf16", "tf32"))
    monkeypatch.setattr(verdicts, "device_facts", lambda _device: ["cuda Fake", "9.0"])
    monkeypatch.setattr(forms, "_batch", lambda *given: batch(*given[:3], CPU))
    monkeypatch.setattr(forms, "_random", lambda _predictor, trial: seen.append(trial))
    return seen


def on_gpu(precision: str = "any") -> Made:
    return Made(make_card(64, 4, 8, precision=precision), cnn, WAITS, device=torch.device("cuda"))


def test_a_gpu_has_forms_of_its_own(gpu: object) -> None:
    assert lanes_asked("auto", "auto", on_gpu()) == GPU_LANES
    assert lanes_asked("tensorrt", "auto", on_gpu()) == GPU_LANES[-2:]
    in_fp32 = [lane.form for lane in lanes_asked("auto", "fp32", on_gpu())]
    assert in_fp32 == ["torchscript", "cudnn", "aotinductor"]
    with pytest.raises(
        MachineError, match=r"asks for fp32, in which --form tensorrt .* one of tf32, bf16, fp16"
    ):
        lanes_asked("tensorrt", "auto", on_gpu("fp32"))


def test_a_gpu_is_timed_in_batches_of_the_run_where_the_run_is_long(
    gpu: list[list[Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Short runs leave it to the gate; what is known of windows as long holds for other batches."""
    tried: list[tuple[list[Lane], list[tuple[int, ...]]]] = []
    speeds = {lane: 2.0 + k / 10 for k, lane in enumerate(GPU_LANES)} | {EXACT: 1.0}

    def timed(
        _predictor: object, lanes: Sequence[Lane], samples: Sequence[Sequence[Tensor] | None], *_: object
    ) -> tuple[BenchRow, ...]:
        if samples[0] is not None:
            tried.append((list(lanes), [tuple(sample[0].shape) for sample in samples]))
        return tuple(row(lane, speeds[lane], passes=lane.precision != "bf16") for lane in lanes)

    monkeypatch.setattr(forms, "bench", timed)

    def taken(side: int, batch: int = 3, lanes: Sequence[Lane] = GPU_LANES) -> Lane:
        plan = replace(plan_of(make_scene((side, side)), make_card(64, 4, 8)), batch=batch)
        return choose_lane(lanes, on_gpu(), plan, "a", windows, lambda: Lane("torchscript", "bf16"))

    assert taken(300) == Lane("torchscript", "bf16") and not tried
    assert taken(2000) == Lane("torchscript", "tf32"), "compilers would take longer than the run"
    assert tried == [([EXACT, Lane("torchscript", "tf32"), REDUCED], [(3, 3, 64, 64)] * 2)]
    assert taken(16_000) == Lane("cudnn", "tf32"), "what needs no compiler sooner"
    assert set(tried[1][0]) == {EXACT, *GPU_LANES[3:6]}
    assert taken(40_000) == Lane("tensorrt", "tf32") and set(tried[2][0]) == {EXACT, *GPU_LANES[6:]}
    assert set(gpu) == {(3, 64, 64)} and taken(40_000, batch=5) == Lane("tensorrt", "tf32")
    assert len(tried) == 3, "all is known by now"


def test_a_batch_is_made_of_the_windows_that_there_are() -> None:
    first, second = windows()
    (batch,) = forms._batch([first, second], 1, 3, CPU)
    assert batch.equal(torch.cat([second[0], first[0], second[0]]))


def test_forms_that_flip_more_than_near_ties_are_told_and_never_taken() -> None:
    def other(image: Tensor) -> Tensor:
        return cnn(image).flip(1)

    class Two(FunctionPredictor):
        def at(self, precision: str, form: str = "torchscript") -> FunctionPredictor:
            if form == "openvino" and precision == "bf16":
                return FunctionPredictor(
                    self.card, lambda *_: (_ for _ in ()).throw(RuntimeError("x\nno room"))
                )
            return replace(self, function=other) if precision == "bf16" else self

    network = Two(make_card(64, 4, 8), cnn)
    rows = {r.lane: r for r in bench.bench(network, ALL, windows())}
    assert rows[EXACT].passes and rows[OTHER].passes and rows[OTHER].disagreement == 0
    assert not rows[REDUCED].passes and rows[REDUCED].disagreement > 0.5
    assert rows[BOTH].mpx_per_s == 0 and rows[BOTH].note.startswith("cannot run")
    assert trial_side(network.card) == 64


def test_a_worker_without_the_runtime_cannot_take_part() -> None:
    terms = Terms("forms-1", versions=local_versions(), runtime="openvino 3.0")
    assert why_unfit(terms) is None
    why = why_unfit(replace(terms, run="forms-2", runtime="openvino 9.9"))
    assert why is not None and why.startswith("it lacks openvino 9.9") and "--form torchscript" in why


def test_those_that_may_be_fastest_are_timed_in_the_windows_of_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And the rest of what was found stays: what setting up takes, and who flips too much."""
    small = (
        row(EXACT, 1),
        row(REDUCED, 4, passes=False),
        replace(row(OTHER, 3, first=3.0), again_s=0.2),
        row(BOTH, 4),
        replace(row(COMPILED, 4), mpx_per_s=0.0, processor_s=0.0, note="cannot run"),
        row(COMPILED_REDUCED, 1.9),
    )
    asked: list[tuple[list[Lane], list[tuple[int, ...]], int]] = []

    def timed(
        _predictor: object, lanes: Sequence[Lane], samples: Sequence[Sequence[Tensor]], repeats: int
    ) -> tuple[BenchRow, ...]:
        asked.append((list(lanes), [tuple(sample[0].shape) for sample in samples], repeats))
        return tuple(row(lane, 8.0, passes=lane != BOTH) for lane in lanes)

    monkeypatch.setattr(forms, "bench", timed)
    plan = replace(plan_of(make_scene((300, 300)), make_card(64, 4, 8)), batch=2)
    found = {one.lane: one for one in forms.time_in_windows(predictor(), plan, small, windows(), 3)}
    assert asked == [([EXACT, OTHER, BOTH], [(2, 3, 64, 64)] * 2, 3)], (
        "torch, and what takes less than half a second"
    )
    assert found[EXACT].mpx_per_s == found[OTHER].mpx_per_s == 8 and found[OTHER].processor_s == 1 / 8
    assert found[OTHER].first_s == 3.0 and found[OTHER].again_s == 0.2
    assert found[OTHER].passes and not found[BOTH].passes and not found[REDUCED].passes
    assert [found[lane] for lane in (REDUCED, COMPILED, COMPILED_REDUCED)] == [small[1], *small[4:]]
    assert forms.time_in_windows(predictor(), plan, small, [], 3) == small, "no window has a valid pixel"


def test_turns_go_on_until_a_quick_network_was_timed_often(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = [0.0], [0]

    def counting(image: Tensor) -> Tensor:
        calls[0] += 1
        clock[0] += 0.05
        return cnn(image)

    monkeypatch.setattr(bench.time, "perf_counter", lambda: clock[0])
    network = FunctionPredictor(make_card(64, 4, 8), counting)
    bench.bench(network, (EXACT,), windows(), repeats=2)
    few = calls[0]
    bench.bench(network, (EXACT,), windows(), repeats=2, seconds=1.0)
    assert calls[0] - few == few + 2 * (10 - 2), "ten turns of two samples take a second"
