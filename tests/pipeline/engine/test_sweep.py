import threading
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from making import CASE, FILL, cnn, make_card, make_case, make_scene, plan_of, pointwise, run_sweeps, whole
from strategies import sweeps

from citycover.engine import votes
from citycover.engine.input import Room, SweepInput
from citycover.engine.sweep import sweep
from citycover.errors import MachineError, ModelError, StoppedError
from citycover.geometry.window import Window
from citycover.model.card import BandGroup
from citycover.model.predictor import FunctionPredictor
from citycover.model.probabilities import to_probabilities
from citycover.read.reader import ArrayReader, Hole


@given(sweeps())
def test_tiled_equals_whole_for_a_cnn_whose_receptive_field_is_trimmed(run: dict) -> None:
    image, valid, card, plan = make_case(run)
    classes, confidence = run_sweeps(plan, card, cnn, [image], [valid])
    wanted = whole(card, cnn, image, valid)
    two = wanted.topk(2, dim=0).values
    clear = ((two[0] - two[1]) > 1e-5).numpy()
    agrees = classes == wanted.argmax(0).numpy() + 1
    assert (agrees | ~clear)[valid].all()
    difference = np.abs(confidence - 255 * two[0].numpy())
    assert (difference <= 0.5 + 255e-5)[valid & (confidence > 1)].all()
    assert (classes[~valid] == 0).all() and (confidence[~valid] == 0).all()
    assert (confidence[valid] > 0).all()


@given(sweeps())
def test_tiled_equals_whole_exactly_for_a_pointwise_model(run: dict) -> None:
    image, valid, card, plan = make_case(run)
    classes, _ = run_sweeps(plan, card, pointwise, [image], [valid])
    wanted = whole(card, pointwise, image, valid)
    two = wanted.topk(2, dim=0).values
    distinct = (two[0] > two[1] * (1 + 2**-19)).numpy()  # what BestClass counts as equal is a tie
    assert (classes == wanted.argmax(0).numpy() + 1)[valid & distinct].all()
    assert (classes[valid] > 0).all() and (classes[~valid] == 0).all()


@given(sweeps(), st.tuples(st.integers(4, 50), st.integers(4, 50)))
def test_any_block_layout_gives_the_same_pixels(run: dict, block: tuple[int, int]) -> None:
    image, valid, card, plan = make_case(run)
    other = plan_of(make_scene(run["shape"]), card, block=block, batch=run["batch"])
    for a, b in zip(
        run_sweeps(plan, card, cnn, [image], [valid]),
        run_sweeps(other, card, cnn, [image], [valid]),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_each_block_alone_gives_the_same_pixels_as_with_carried_rows() -> None:
    image, valid, card, plan = make_case(
        CASE
        | {
            "shape": (80, 70),
            "window": 30,
            "trim": 4,
            "feather": 6,
            "block": (22, 33),
            "batch": 2,
            "mask": "corner",
        }
    )
    carried, _ = run_sweeps(plan, card, cnn, [image], [valid])
    given_ = SweepInput(plan, FunctionPredictor(card, cnn), lambda: [ArrayReader(image, valid)])
    for block in plan.blocks():
        (alone,) = sweep(given_, [block])
        np.testing.assert_array_equal(alone.layers["classes"], carried[block.window.slices])


def test_the_frame_of_the_raster_is_ordinary() -> None:
    image, valid, card, plan = make_case(
        CASE | {"shape": (64, 64), "window": 32, "block": (64, 64), "batch": 4}
    )
    classes, _ = run_sweeps(plan, card, pointwise, [image], [valid])
    wanted = whole(card, pointwise, image, valid).argmax(0).numpy() + 1
    frame = np.ones((64, 64), np.bool_)
    frame[1:-1, 1:-1] = False
    assert frame.sum() == 4 * 64 - 4
    np.testing.assert_array_equal(classes[frame], wanted[frame])


def test_windows_without_a_valid_pixel_are_not_run() -> None:
    calls = []

    def counting(image: torch.Tensor) -> torch.Tensor:
        calls.append(len(image))
        return cnn(image)

    image, valid, card, plan = make_case(
        CASE | {"shape": (90, 90), "block": (90, 90), "batch": 8, "mask": "half"}
    )
    counts = []
    run_sweeps(plan, card, counting, [image], [valid], on_windows=lambda *row: counts.append(row))
    run, skipped, slots = (sum(column) for column in zip(*counts, strict=True))
    assert run < plan.windows
    assert sum(calls) == slots < 8 * plan.windows  # whole batches, and none for a row without valid pixels
    assert run + skipped == plan.windows


def test_outside_the_area_of_interest_is_nodata_and_not_run() -> None:
    image, valid, card, plan = make_case(CASE | {"shape": (60, 60), "block": (60, 60)})
    inside = np.zeros((60, 60), np.bool_)
    inside[5:20, 30:50] = True

    def area(window: Window) -> np.ndarray:
        padded = np.pad(inside, 100)
        return padded[window.row + 100 : window.row_end + 100, window.col + 100 : window.col_end + 100]

    everything, _ = run_sweeps(plan, card, cnn, [image], [valid])
    classes, _ = run_sweeps(plan, card, cnn, [image], [valid], area=area)
    np.testing.assert_array_equal(classes, np.where(inside, everything, 0))


def upscale(image: torch.Tensor) -> torch.Tensor:
    return pointwise(image).repeat_interleave(5, 2).repeat_interleave(5, 3)


@given(st.tuples(st.integers(20, 90), st.integers(20, 90)))
def test_output_five_times_as_fine_as_the_input(block: tuple[int, int]) -> None:
    card = make_card(24, 4, 4, output_scale="5")
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (37, 29, 3), np.uint8)
    valid = rng.random((37, 29)) < 0.8
    plan = plan_of(make_scene((37, 29)), card, block=block)
    classes, _ = run_sweeps(plan, card, upscale, [image], [valid])
    wanted = whole(make_card(24, 4, 4), pointwise, image, valid).argmax(0).numpy() + 1
    wanted[~valid] = 0
    np.testing.assert_array_equal(classes, wanted.repeat(5, 0).repeat(5, 1))


@pytest.mark.parametrize("block", [(8192, 8192), (1, 2), (3, 1)])
def test_a_label_grid_is_blended_from_overlapping_windows(block: tuple[int, int]) -> None:
    def scene_label(image: torch.Tensor) -> torch.Tensor:
        vector = pointwise(image).mean((2, 3), keepdim=True)
        return vector.expand(-1, -1, image.shape[2] // 60, image.shape[3] // 60)

    card = make_card(120, 0, 60, output_scale="1/60", stride=60, task="labels")
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (200, 250, 3), np.uint8)
    valid = np.ones((200, 250), np.bool_)
    valid[:60, 60:120] = False
    plan = plan_of(make_scene((200, 250)), card, block=block)
    classes, _ = run_sweeps(plan, card, scene_label, [image], [valid])
    assert classes.shape == (4, 5)
    assert classes[0, 1] == 0 and (np.delete(classes, 1) > 0).all()


def test_band_groups_on_coarser_grids_stay_aligned_at_odd_sizes() -> None:
    def fuse(fine: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        up = coarse.float().repeat_interleave(2, 2).repeat_interleave(2, 3)
        return pointwise(fine) + pointwise(up)

    groups = tuple(
        BandGroup(name=str(r), bands=("a", "b", "c"), ratio=r, dtypes=("uint8",), fill=FILL) for r in (1, 2)
    )
    card = make_card(24, 4, 4, groups=groups, stride=2)
    rng = np.random.default_rng(0)
    fine = rng.integers(0, 255, (41, 33, 3), np.uint8)
    coarse = rng.integers(0, 255, (21, 17, 3), np.uint8)
    seen = rng.random((21, 17)) < 0.8
    plan = plan_of(make_scene((41, 33), ratios=(1, 2)), card, block=(30, 20))
    classes, _ = run_sweeps(plan, card, fuse, [fine, coarse], [None, seen])
    filled = np.where(seen[..., None], coarse, np.array(FILL, np.uint8))
    tensors = [
        torch.from_numpy(a).permute(2, 0, 1)[None] for a in (np.pad(fine, ((0, 1), (0, 1), (0, 0))), filled)
    ]
    wanted = fuse(*tensors)[0, :, :41, :33].argmax(0).numpy() + 1
    wanted[~seen.repeat(2, 0).repeat(2, 1)[:41, :33]] = 0
    np.testing.assert_array_equal(classes, wanted)


# TorchScript and other runtimes hand on what torch said as text.
OUT_OF_MEMORY = [
    torch.OutOfMemoryError(),
    RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("The following operation failed in the TorchScript interpreter.\nCUDA out of memory. Tried"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_a_batch_that_does_not_fit_is_halved(error: Exception) -> None:
    def greedy(image: torch.Tensor) -> torch.Tensor:
        if len(image) > 1:
            raise error
        return cnn(image)

    image, valid, card, plan = make_case(CASE | {"shape": (60, 60), "block": (60, 60), "batch": 4})
    halved, _ = run_sweeps(plan, card, greedy, [image], [valid])
    plain, _ = run_sweeps(plan, card, cnn, [image], [valid])
    np.testing.assert_array_equal(halved, plain)


@pytest.mark.parametrize("dates", [1, 2])
def test_a_batch_whose_probabilities_do_not_fit_is_halved(
    dates: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def greedy(scores: torch.Tensor, *given: Any) -> torch.Tensor:
        if len(scores) > 1:
            raise torch.OutOfMemoryError
        return to_probabilities(scores, *given)

    image, valid, card, plan = make_case(CASE | {"shape": (60, 60), "block": (60, 60), "batch": 4})
    plain, _ = run_sweeps(plan, card, cnn, [image] * dates, [valid] * dates)
    monkeypatch.setattr(votes, "to_probabilities", greedy)
    halved, _ = run_sweeps(plan, card, cnn, [image] * dates, [valid] * dates, room=(room := Room()))
    np.testing.assert_array_equal(halved, plain)
    assert room.batch == 1


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_a_window_that_does_not_fit_is_no_bug(error: Exception) -> None:
    def greedy(_image: torch.Tensor) -> torch.Tensor:
        raise error

    image, valid, card, plan = make_case(CASE | {"shape": (60, 60), "block": (60, 60), "batch": 4})
    with pytest.raises(MachineError, match="does not fit into the memory of cpu"):
        run_sweeps(plan, card, greedy, [image], [valid])


def test_holes_of_every_band_group_are_told_once() -> None:
    class Broken(ArrayReader):
        def __init__(self, values: np.ndarray, rows: tuple[int, ...]) -> None:
            super().__init__(values, None, (8, 8))
            self.broken = {row: Hole(Window(row, 0, 1, 1), f"{values.shape[0]} rows", "x") for row in rows}

        def read_into(self, window: Window, values: np.ndarray, valid: np.ndarray) -> tuple[Hole, ...]:
            super().read_into(window, values, valid)
            found = [row for row in self.broken if window.row <= row < window.row_end]
            return tuple(self.broken.pop(row) for row in found)

    groups = tuple(
        BandGroup(name=str(r), bands=("a", "b", "c"), ratio=r, dtypes=("uint8",), fill=FILL) for r in (1, 2)
    )
    card = make_card(24, 4, 4, groups=groups, stride=2)
    plan = plan_of(make_scene((600, 20), ratios=(1, 2)), card, block=(20, 20))
    fine, coarse = np.ones((600, 20, 3), np.uint8), np.ones((300, 10, 3), np.uint8)
    predictor = FunctionPredictor(card, lambda fine, _coarse: pointwise(fine))
    start = SweepInput(plan, predictor, lambda: [Broken(fine, (10, 500)), Broken(coarse, (20,))])
    told = [hole for block in sweep(start, list(plan.blocks())) for hole in block.holes]
    assert sorted((hole.path, hole.window.row) for hole in told) == [
        ("300 rows", 40), ("600 rows", 10), ("600 rows", 500),
    ]  # fmt: skip


def test_a_stop_is_heard_where_nothing_is_valid() -> None:
    image, valid, card, plan = make_case(CASE | {"shape": (90, 30), "block": (90, 30), "mask": "all"})
    stop = threading.Event()
    stop.set()
    with pytest.raises(StoppedError):
        run_sweeps(plan, card, cnn, [image], [valid], stop=stop)


def test_a_network_that_breaks_its_promise_is_named() -> None:
    image, valid, card, plan = make_case(CASE | {"shape": (30, 30), "block": (30, 30)})
    with pytest.raises(ModelError, match="its card promises"):
        run_sweeps(plan, card, lambda x: cnn(x)[:, :4], [image], [valid])


def test_stopping_finishes_the_batch_in_hand_and_keeps_finished_blocks() -> None:
    image, valid, card, plan = make_case(CASE | {"shape": (90, 30), "block": (30, 30)})
    stop = threading.Event()
    given_ = SweepInput(plan, FunctionPredictor(card, cnn), lambda: [ArrayReader(image, valid)], stop=stop)
    blocks = sweep(given_, list(plan.blocks()))
    next(blocks)
    stop.set()
    with pytest.raises(StoppedError):
        for _ in blocks:
            pass


def test_an_error_while_reading_reaches_the_caller() -> None:
    class Broken(ArrayReader):
        def read_into(self, *_: object) -> tuple:
            raise OSError("disk on fire")

    image, _, card, plan = make_case(CASE | {"shape": (30, 30), "block": (30, 30)})
    given_ = SweepInput(plan, FunctionPredictor(card, cnn), lambda: [Broken(image)])
    with pytest.raises(OSError, match="disk on fire"):
        list(sweep(given_, list(plan.blocks())))
