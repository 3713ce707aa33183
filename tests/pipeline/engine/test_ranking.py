"""What layers say of ranked classes, against the plain definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from citycover.engine.ranking import Ranker, Ranking

CPU = torch.device("cpu")


def rank(probabilities: torch.Tensor, exclusive: bool = True) -> Ranking:
    """Ranked, class k called k."""
    ids = np.arange(len(probabilities), dtype=np.uint8)
    return Ranker(ids, CPU, exclusive)(probabilities.clone())


def softmax(seed: int, channels: int, sharpness: float) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.softmax(sharpness * torch.randn(channels, 23, 31, generator=rng), 0)


@pytest.mark.parametrize("channels", [1, 2, 5, 8, 19, 256])
def test_the_best_class_is_the_argmax_where_the_winner_is_clear(channels: int) -> None:
    torch.manual_seed(channels)
    probabilities = torch.softmax(5 * torch.randn(channels, 40, 30), 0)
    best = probabilities.max(0)
    names = np.random.default_rng(0).permutation(256)[:channels].astype(np.uint8)
    ranking = Ranker(names, CPU)(probabilities.clone())
    ordered = probabilities.sort(0, descending=True).values
    clear = (ordered[0] / ordered[min(1, channels - 1)] > 1 + 2**-14) | torch.tensor(channels == 1)
    assert (ranking.classes == torch.from_numpy(names)[best.indices])[clear].all()
    wanted = (best.values * 255).round().clamp(1, 255)
    assert (ranking.confidence.float() - wanted).abs().max() <= (0 if channels < 9 else 1)


def test_of_equal_probabilities_the_first_class_wins_and_the_next_is_second() -> None:
    ranking = Ranker(np.array([7, 1, 2, 3], np.uint8), CPU)(torch.full((4, 2, 2), 0.25))
    assert (ranking.classes == 7).all() and (ranking.confidence == 64).all()
    assert (ranking.second == 1).all() and (ranking.margin == 0).all() and (ranking.entropy == 254).all()


@pytest.mark.parametrize("first", [0, 1, 11, 249])
def test_classes_that_are_numbered_one_after_the_other_are_counted_to_the_same_names(first: int) -> None:
    probabilities, names = softmax(first, 7, 5.0), np.arange(first, first + 7, dtype=np.uint8)
    counting, looking_up = Ranker(names, CPU), Ranker(names, CPU)
    assert counting.last == first + 7, "7 classes take 3 bits"
    looking_up.last = None
    counted, looked_up = (ranker(probabilities.clone()) for ranker in (counting, looking_up))
    assert counted.classes.equal(looked_up.classes) and counted.second.equal(looked_up.second)
    assert counted.classes.unique().tolist() == names.tolist()
    assert Ranker(np.array([1, 3], np.uint8), CPU).last is None


near_ties = st.sampled_from([0.0, 1e-9, 0.0019, 0.00196, 0.0117, 0.25, 0.2501, 0.5, 0.50001, 1.0])


@settings(deadline=None)
@given(st.lists(st.lists(near_ties, min_size=2, max_size=40), min_size=1, max_size=6))
def test_shares_sum_to_255_and_their_first_largest_is_the_best_class(pixels: list[list[float]]) -> None:
    for weights in pixels:
        if not sum(weights):
            continue
        exact = torch.tensor(weights, dtype=torch.float32)[:, None, None] / sum(weights)
        check_shares(exact)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.integers(2, 256), st.sampled_from([0.0, 0.01, 1.0, 5.0, 30.0]))
def test_shares_of_any_softmax(seed: int, channels: int, sharpness: float) -> None:
    check_shares(softmax(seed, channels, sharpness))


def check_shares(exact: torch.Tensor) -> None:
    ranking = rank(exact)
    shares = ranking.probabilities.numpy()
    assert (shares.sum(0, dtype=int) == 255).all() and shares.max() <= 254
    np.testing.assert_array_equal(shares.argmax(0), ranking.classes.numpy())
    assert np.abs(shares - 255 * exact.numpy()).max() < 3


def test_probabilities_that_do_not_sum_to_one_are_shares_of_their_sum() -> None:
    shares = rank(torch.tensor([0.2, 0.2, 0.1])[:, None, None]).probabilities.flatten().tolist()
    assert shares == [102, 102, 51]
    assert rank(torch.zeros(3, 1, 1)).probabilities.sum() == 255


def entropy_of(exact: NDArray[np.float64], exclusive: bool) -> NDArray[np.float64]:
    def own(p: NDArray[np.float64]) -> NDArray[np.float64]:
        return -p * np.log(np.where(p > 0, p, 1))

    if exclusive:
        found: NDArray[np.float64] = own(exact).sum(0) / np.log(len(exact))
    else:
        found = (own(exact) + own(1 - exact)).mean(0) / np.log(2)
    return found


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("channels", [2, 7, 40])
@pytest.mark.parametrize("sharpness", [0.1, 2.0, 20.0])
def test_entropy_margin_and_second_are_what_their_definition_says(
    exclusive: bool, channels: int, sharpness: float
) -> None:
    exact = softmax(3, channels, sharpness)
    if not exclusive:
        exact = torch.sigmoid(exact.log() + 3)
    ranking = rank(exact, exclusive)
    wanted = 254 * entropy_of(exact.double().numpy(), exclusive)
    assert np.abs(ranking.entropy.numpy() - wanted).max() < 0.7
    order = exact.sort(0, descending=True)
    lead = 254 * (order.values[0] - order.values[1]).numpy()
    assert np.abs(ranking.margin.numpy() - lead).max() < 0.51
    clear = (order.values[:-1] > order.values[1:] * (1 + 2**-14))[:2].all(0)
    assert (ranking.second == order.indices[1])[clear].all() and clear.sum() > 200


def test_a_pixel_may_be_of_several_classes() -> None:
    exact = torch.tensor([0.5, 0.999999, 0.499999, 1.0, 0.0])[:, None, None]
    ranking = rank(exact, exclusive=False)
    assert ranking.present.flatten().tolist() == [1, 1, 0, 1, 0]
    assert ranking.probabilities.flatten().tolist() == [128, 254, 127, 254, 0]


def test_layers_do_not_depend_on_the_piece_that_is_looked_at() -> None:
    exact = softmax(5, 7, 2.0)
    whole = rank(exact)
    for row, col in ((0, 0), (3, 5), (10, 17)):
        part = rank(exact[:, row : row + 9, col : col + 13].contiguous())
        for name in ("classes", "confidence", "second", "margin", "entropy", "present", "probabilities"):
            of = getattr(whole, name)[..., row : row + 9, col : col + 13]
            assert torch.equal(getattr(part, name), of), name
