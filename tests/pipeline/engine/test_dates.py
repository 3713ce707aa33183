"""Dates whose probabilities are averaged: by any windows and blocks what numpy makes of whole dates."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from making import cnn, make_card, make_scene, plan_of, run_sweeps, whole
from numpy.typing import NDArray
from strategies import sweeps

from citycover.engine.input import SweepInput
from citycover.engine.sweep import sweep
from citycover.errors import ModelError
from citycover.geometry.window import Window
from citycover.model.card import BandGroup, ModelCard
from citycover.model.predictor import FunctionPredictor
from citycover.read.reader import ArrayReader, Hole


def dates_of(
    shape: tuple[int, int], count: int, seen: float
) -> tuple[list[NDArray], list[NDArray[np.bool_]]]:  # type: ignore[type-arg]
    """Images, and where each is valid: in squares, one of them empty now and then."""
    rng = np.random.default_rng(count)
    images = [rng.integers(0, 255, (*shape, 3), np.uint8) for _ in range(count)]
    cells = rng.random((count, -(-shape[0] // 9), -(-shape[1] // 9))) < seen
    return images, list(cells.repeat(9, 1).repeat(9, 2)[:, : shape[0], : shape[1]])


def mean(card: ModelCard, images: list[NDArray], valids: list[NDArray[np.bool_]]) -> torch.Tensor:  # type: ignore[type-arg]
    """(c, y, x) mean of the valid dates, each mapped as a whole; 0 where there is none."""
    dates = [whole(card, cnn, image, valid) for image, valid in zip(images, valids, strict=True)]
    weights = torch.from_numpy(np.stack(valids)).float()
    total = (torch.stack(dates) * weights[:, None]).sum(0)
    return total / weights.sum(0).clamp_min(1)


@given(sweeps(), st.integers(2, 4), st.sampled_from([0.3, 0.8]))
def test_tiled_dates_are_the_mean_of_whole_ones(run: dict, count: int, seen: float) -> None:
    card = make_card(run["window"], run["trim"], run["feather"])
    plan = plan_of(make_scene(run["shape"]), card, block=run["block"], batch=run["batch"])
    images, valids = dates_of(run["shape"], count, seen)
    classes, confidence = run_sweeps(plan, card, cnn, images, valids)
    two = (found := mean(card, images, valids)).topk(2, dim=0).values
    any_valid = np.any(valids, axis=0)
    clear = ((two[0] - two[1]) > 1e-5).numpy()
    assert ((classes == found.argmax(0).numpy() + 1) | ~clear)[any_valid].all()
    assert (np.abs(confidence - 255 * two[0].numpy()) <= 0.5 + 255e-5)[any_valid & (confidence > 1)].all()
    assert (classes[~any_valid] == 0).all() and (classes[any_valid] > 0).all()


@given(sweeps(), st.tuples(st.integers(4, 50), st.integers(4, 50)))
def test_blocks_do_not_matter(run: dict, block: tuple[int, int]) -> None:
    card = make_card(run["window"], run["trim"], run["feather"])
    images, valids = dates_of(run["shape"], 3, 0.5)
    plans = [
        plan_of(make_scene(run["shape"]), card, block=b, batch=run["batch"]) for b in (run["block"], block)
    ]
    one, other = (run_sweeps(plan, card, cnn, images, valids) for plan in plans)
    np.testing.assert_array_equal(one, other)


def test_a_date_that_is_alone_counts_fully_and_windows_that_it_lacks_are_not_run() -> None:
    """West of the middle the first date, east of it the second: as if each were mapped by itself."""
    shape, card = (60, 120), make_card(32, 4, 4)
    images, _ = dates_of(shape, 2, 1.0)
    west = np.broadcast_to(np.arange(120) < 60, shape)
    plan = plan_of(make_scene(shape), card, batch=1)
    ran: list[bool] = []

    def counted(image: torch.Tensor) -> torch.Tensor:
        ran.append(True)
        return cnn(image)

    both = run_sweeps(plan, card, counted, images, [west, ~west])
    together = len(ran)
    alone = [run_sweeps(plan, card, counted, [i], [v]) for i, v in zip(images, (west, ~west), strict=True)]
    assert together == len(ran) - together
    for layer, first, second in zip(both, *alone, strict=True):
        np.testing.assert_array_equal(layer, np.where(west, first, second))


@pytest.mark.parametrize("scale", ["1/4", "2"])
def test_dates_of_several_groups_on_another_output_grid(scale: str) -> None:
    """A coarse group is valid on its own; an output pixel hears a date where any pixel under it is valid."""
    groups = (
        BandGroup(name="fine", bands=("a",), dtypes=("uint8",)),
        BandGroup(name="coarse", bands=("b",), dtypes=("uint8",), ratio=2),
    )
    card = make_card(32, 4, 4, groups=groups, output_scale=scale, stride=4)
    side = card.output_scale

    def network(fine: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        seen = fine.float()[:, 0] + coarse.float()[:, 0].repeat_interleave(2, 1).repeat_interleave(2, 2)
        scores = torch.stack([seen / 100 * k for k in range(5)], 1)
        return torch.nn.functional.interpolate(scores, scale_factor=float(side), mode="nearest")

    plan = plan_of(make_scene((48, 64), (1, 2)), card)
    values = [10, 200]
    images = [np.full((48 // r, 64 // r, 1), value, np.uint8) for value in values for r in (1, 2)]
    valids = [np.ones(image.shape[:2], np.bool_) for image in images]
    valids[1][:, 16:] = False  # the first date is seen west of column 32
    classes, confidence = run_sweeps(plan, card, network, images, valids)
    wanted = [torch.softmax(torch.arange(5) * 2 * v / 100, 0) for v in values]
    east = int(32 * side)
    assert (classes == 5).all()
    assert abs(confidence[:, east:].astype(int) - 255 * wanted[1][4].item()).max() <= 1
    assert abs(confidence[:, :east].astype(int) - 255 * (wanted[0] + wanted[1])[4].item() / 2).max() <= 1


def test_what_is_no_probability_on_a_date_is_refused_with_its_window() -> None:
    card = make_card(32, 4, 4, activation="probabilities")
    images, valids = dates_of((60, 60), 2, 1.0)
    images[1][40:] = 255
    images[0][:40] = 255
    plan = plan_of(make_scene((60, 60)), card)

    def network(image: torch.Tensor) -> torch.Tensor:
        scores = torch.full((len(image), 5, *image.shape[2:]), 0.2)
        scores[:, 0][image[:, 0] == 255] = float("nan")
        return scores

    hidden = [(image[..., 0] != 255) & valid for image, valid in zip(images, valids, strict=True)]
    classes, _ = run_sweeps(plan, card, network, images, hidden)
    assert (classes[np.any(hidden, axis=0)] > 0).all()
    with pytest.raises(ModelError, match=r"not finite .* at row -8, column -8"):
        run_sweeps(plan, card, network, images, valids)

    def odd(image: torch.Tensor) -> torch.Tensor:
        return torch.full((len(image), 5, 32, 32), -0.1).index_fill(1, torch.tensor([0]), 1.3)

    too_much = plan_of(make_scene((60, 60)), card)
    with pytest.raises(ModelError, match=r"scores from -0\.1 to 1\.3"):
        run_sweeps(
            too_much,
            card,
            lambda i: torch.full((len(i), 5, 32, 32), -0.1).index_fill(1, torch.tensor([0]), 1.3),
            images,
            valids,
        )


@dataclass
class Lossy(ArrayReader):
    """A reader that cannot read its first rows."""

    def read_into(self, window: Window, values: NDArray[Any], valid: NDArray[np.bool_]) -> tuple[Hole, ...]:
        super().read_into(window, values, valid)
        lost = window.clip(Window(0, 0, 8, self.shape[1]))
        if lost is None:
            return ()
        valid[lost.shift(-window.row, -window.col).slices] = False
        return (Hole(lost, "x.tif", "gone"),)


def test_holes_of_every_date_and_group_are_told_of() -> None:
    groups = (
        BandGroup(name="fine", bands=("a",), dtypes=("uint8",)),
        BandGroup(name="coarse", bands=("b",), dtypes=("uint8",), ratio=2),
    )
    card = make_card(32, 4, 4, groups=groups, stride=4)
    plan = plan_of(make_scene((48, 64), (1, 2)), card)
    images = [np.full((48 // r, 64 // r, 1), 7, np.uint8) for r in (1, 2)]

    def network(fine: torch.Tensor, _coarse: torch.Tensor) -> torch.Tensor:
        return torch.stack([fine.float()[:, 0] * k for k in range(5)], 1)

    readers = [ArrayReader(images[0]), ArrayReader(images[1]), ArrayReader(images[0]), Lossy(images[1])]
    given_ = SweepInput(plan, FunctionPredictor(card, network), lambda: readers)
    (block,) = sweep(given_, list(plan.blocks()))
    assert [hole.window for hole in block.holes] == [Window(0, 0, 16, 64)]
    assert (block.layers["classes"] == 5).all(), "the other date shows the place"
