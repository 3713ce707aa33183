"""A district rebuilt since the labels were made: found, and what is only noise is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from affine import Affine
from labelled import CLASSES, grid_of, image_grid, write_sheet
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from citycover.errors import ConfigError
from citycover.evidence.change import ChangeField, check_windows
from citycover.evidence.comparison import Comparison
from citycover.evidence.field import LabelField
from citycover.evidence.labels import LabelEvidence
from citycover.evidence.open import open_field
from citycover.evidence.rule import Rule
from citycover.geometry.window import Window

CPU = torch.device("cpu")
SIDE, CELL = 300, 10
WHOLE = Window(0, 0, SIDE, SIDE)
DISTRICT = np.s_[84:164, 123:223]
"""Pixels that were rebuilt, 8 x 10 cells; cells are not cut at its border."""


def town(seed: int = 4) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(y, x) classes of patches some cells wide: before, and since the district was rebuilt."""
    rng = np.random.default_rng(seed)
    fields = [uniform_filter(rng.normal(size=(SIDE, SIDE)), 35) for _ in range(CLASSES)]
    before = np.argmax(fields, 0)
    since = before.copy()
    since[DISTRICT] = (before[DISTRICT] + 1 + rng.integers(0, 2)) % CLASSES
    return before, since


def sees(truth: NDArray[np.int64], right: float) -> torch.Tensor:
    """(c, y, x) probabilities of a network that is right in a share of the pixels, and sure in all."""
    rng = np.random.default_rng(5)
    said = np.where(rng.random(truth.shape) < right, truth, rng.integers(0, CLASSES, truth.shape))
    planes = np.where(said == np.arange(CLASSES)[:, None, None], 0.91, 0.03)
    return torch.from_numpy(planes.astype(np.float32))


def labels_of(path: Path, truth: NDArray[np.int64], wrong: float, turn: float = 0.0) -> LabelEvidence:
    """Cells by the class of their middle, a share of them drawn anew; watched for change."""
    cells = truth[CELL // 2 :: CELL, CELL // 2 :: CELL].astype(np.int16)
    rng = np.random.default_rng(6)
    cells = np.where(rng.random(cells.shape) < wrong, rng.integers(0, CLASSES, cells.shape), cells)
    corner = Affine(CELL, 0, 500_000, 0, -CELL, 5_800_000) * Affine.rotation(turn)
    sheet = write_sheet(path / "labels.tif", cells, grid_of(cells.shape, corner))
    even = (1 / CLASSES,) * CLASSES
    return LabelEvidence((sheet,), even, even, Rule(wrong), change=True)


def lost(labels: LabelEvidence, probabilities: torch.Tensor) -> torch.Tensor:
    """(y, x) trust that labels lose, by one window over all of it."""
    field = ChangeField(labels, image_grid((SIDE, SIDE)), CPU)
    return field.watch(probabilities, WHOLE, np.ones((SIDE, SIDE), np.bool_))


def changed(labels: LabelEvidence, probabilities: torch.Tensor) -> NDArray[np.bool_]:
    """(y, x) where labels lose half of their trust."""
    return (lost(labels, probabilities) >= 0.5).numpy()


@pytest.mark.parametrize("seed", [4, 5, 6])
@pytest.mark.parametrize(("wrong", "right"), [(0.0, 0.9), (0.2, 0.9), (0.0, 0.75), (0.2, 0.75)])
def test_a_rebuilt_district_is_found_and_noise_is_not(
    tmp_path: Path, wrong: float, right: float, seed: int
) -> None:
    before, since = town(seed)
    got = changed(labels_of(tmp_path, before, wrong), sees(since, right))
    planted = np.zeros_like(got)
    planted[DISTRICT] = True
    near = np.zeros_like(got)
    near[64:184, 103:243] = True
    same = changed(labels_of(tmp_path, since, wrong), sees(since, right))
    print(f"found {got[planted].mean():.3f} elsewhere {got[~near].mean():.5f}, unchanged {same.mean():.5f}")
    assert got[planted].mean() > 0.7
    assert got[~near].mean() < 0.003
    assert same.mean() < 0.003


def test_labels_have_no_say_where_the_place_has_changed(tmp_path: Path) -> None:
    """There the map follows the network; elsewhere it is that of a map without --change, bit for bit."""
    before, since = town()
    labels, probabilities = labels_of(tmp_path, before, 0.0), sees(since, 0.9)
    grid = image_grid((SIDE, SIDE))
    without = lost(labels, probabilities)
    told = ChangeField(labels, grid, CPU)(torch.cat([probabilities, without[None]]), WHOLE)[:-1]
    plain = LabelField(labels, grid, CPU)(probabilities.clone(), WHOLE)
    assert torch.equal(told[:, without == 0], plain[:, without == 0])
    assert (without == 1).float().mean() > 0.03
    gone = np.zeros((SIDE, SIDE), np.bool_)
    gone[DISTRICT] = (without == 1).numpy()[DISTRICT]
    right, kept = ((p.argmax(0).numpy() == since)[gone].mean() for p in (told, plain))
    assert right > 0.85
    assert kept < 0.2


def test_a_network_that_says_less_than_it_knows_is_taken_for_what_it_is_worth(tmp_path: Path) -> None:
    """Of a network that learned for minutes the best class has two fifths, and is right all the same."""
    before, since = town()
    labels = labels_of(tmp_path, before, 0.0)
    shy = (sees(since, 0.9) + 0.7) / (CLASSES * 0.7 + 1)
    assert not changed(labels, shy).any()
    comparison = Comparison(labels.prior, CELL**2)
    comparison.add(shy.numpy(), before)
    odds = comparison.odds(0.1)
    assert min(slope for slope, _ in odds) > 2
    found = changed(replace(labels, odds=odds), shy)
    assert found[DISTRICT].mean() > 0.7
    assert found.sum() < 1.1 * found[DISTRICT].sum()


def test_a_class_that_the_network_cannot_tell_is_never_gone(tmp_path: Path) -> None:
    before, since = town()
    labels = replace(labels_of(tmp_path, before, 0.0), slopes=(0.4,) * CLASSES)
    assert not changed(labels, sees(since, 0.9)).any()


def test_cells_on_other_axes_tell_the_same(tmp_path: Path) -> None:
    before, since = town()
    straight = changed(labels_of(tmp_path, before, 0.0), sees(since, 0.9))
    turned = changed(labels_of(tmp_path, before, 0.0, turn=1e-4), sees(since, 0.9))
    assert (straight != turned).mean() < 0.001


def test_nothing_is_lost_without_a_label_or_an_image(tmp_path: Path) -> None:
    """And where there is no label the layer says so."""
    _, since = town()
    cells = np.full((SIDE // CELL,) * 2, -1, np.int16)
    cells[:, :12] = (since[5::CELL, 5::CELL][:, :12] + 1) % CLASSES
    sheet = write_sheet(
        tmp_path / "half.tif", cells, grid_of(cells.shape, Affine(CELL, 0, 5e5, 0, -CELL, 5.8e6))
    )
    even = (1 / CLASSES,) * CLASSES
    labels, probabilities = LabelEvidence((sheet,), even, even, Rule(0.0), change=True), sees(since, 0.9)
    field = ChangeField(labels, image_grid((SIDE, SIDE)), CPU)
    seen = np.ones((SIDE, SIDE), np.bool_)
    seen[150:] = False
    probabilities[:, 150:] = torch.nan  # as some networks do where there is no image
    planes = torch.cat([probabilities, field.watch(probabilities, WHOLE, seen)[None]])
    assert (planes[-1, :140, 10:100] == 1).float().mean() > 0.98
    assert (planes[-1, 160:] == 0).all()
    after = field(planes, WHOLE)[-1]
    assert (after[:, 131:] == -1).all()
    assert (after[:, :119] >= 0).all()


def test_windows_that_see_too_few_cells_are_refused(tmp_path: Path) -> None:
    labels = labels_of(tmp_path, town()[0], 0.0)
    check_windows(labels.sheets, image_grid((SIDE, SIDE)), 51)
    with pytest.raises(
        ConfigError, match=r"5 cells of the labels across, 50 px .* votes on 40; give --window"
    ):
        check_windows(labels.sheets, image_grid((SIDE, SIDE)), 40)


def test_only_labels_that_are_watched_look(tmp_path: Path) -> None:
    labels, grid = labels_of(tmp_path, town()[0], 0.0), image_grid((SIDE, SIDE))
    assert isinstance(open_field(labels, grid, CPU), ChangeField)
    plain = open_field(replace(labels, change=False), grid, CPU)
    assert plain is not None
    assert not isinstance(plain, ChangeField)
    assert open_field(None, grid, CPU) is None
