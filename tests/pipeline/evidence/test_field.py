from __future__ import annotations

import pickle
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled import CLASSES, grid_of, image_grid, write_sheet
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.special import softmax

from citycover.evidence.cells import Sheet
from citycover.evidence.field import LabelField
from citycover.evidence.labels import LabelEvidence
from citycover.evidence.rule import PARTS, Rule
from citycover.geometry.window import Window

CPU = torch.device("cpu")
PRIOR = (0.4, 0.3, 0.2, 0.1)
SHARES = (0.1, 0.2, 0.3, 0.4)


def evidence(*sheets: Sheet, noise: float = 0.0, prior: tuple[float, ...] = PRIOR) -> LabelEvidence:
    return LabelEvidence(sheets, prior, SHARES, Rule(noise))


def random_cells(shape: tuple[int, int], seed: int = 0, holes: float = 0.0) -> NDArray[np.int16]:
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, CLASSES, shape).astype(np.int16)
    cells[rng.random(shape) < holes] = -1
    return cells


def random_probabilities(shape: tuple[int, int], seed: int = 1) -> torch.Tensor:
    logits = np.random.default_rng(seed).normal(0, 2, (CLASSES, *shape))
    return torch.from_numpy(softmax(logits, 0).astype(np.float32))


def all_of(probabilities: torch.Tensor) -> Window:
    return Window(0, 0, *probabilities.shape[1:])


def one_hot(cells: NDArray[np.int16]) -> NDArray[np.float64]:
    return (cells == np.arange(CLASSES)[:, None, None]).astype(np.float64)


def positions(grid: GeoBox, cells: GeoBox) -> NDArray[np.float64]:
    """(2, y, x) exact position of each pixel centre, in cells."""
    y, x = np.mgrid[: grid.shape[0], : grid.shape[1]] + 0.5
    to = Transformer.from_crs(str(grid.crs), str(cells.crs), always_xy=True)
    col, row = ~cells.transform * to.transform(*(grid.transform * (x, y)))
    return np.stack([row, col]) - 0.5


OTHER_GRIDS = {
    "aligned": grid_of((9, 11), Affine(10, 0, 499_993.3, 0, -10, 5_800_007.7)),
    "south up": grid_of((9, 11), Affine(10, 0, 499_993.3, 0, 10, 5_799_925.0)),
    "turned": grid_of((12, 14), Affine(9, 3, 499_960, 3, -9, 5_800_010)),
    "degrees": grid_of((14, 11), Affine(1.5e-4, 0, 14.99998, 0, -9e-5, 52.3499), "EPSG:4326"),
}


def geographic() -> GeoBox:
    """Cells in degrees around the image."""
    lon, lat = Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True).transform(500_000, 5_800_000)
    return grid_of((14, 11), Affine(1.5e-4, 0, lon - 1e-4, 0, -9e-5, lat + 1e-4), "EPSG:4326")


OTHER_GRIDS["degrees"] = geographic()


@pytest.mark.parametrize("name", OTHER_GRIDS)
def test_labels_are_bilinear_between_cell_centres_on_any_grid(tmp_path: Path, name: str) -> None:
    grid, cells = image_grid((70, 85)), random_cells(OTHER_GRIDS[name].shape)
    sheet = write_sheet(tmp_path / "labels.tif", cells, OTHER_GRIDS[name])
    got = LabelField(evidence(sheet), grid, CPU).smoothed(Window(0, 0, 70, 85)).numpy()
    at = positions(grid, OTHER_GRIDS[name])
    padded = np.pad(one_hot(cells), [(0, 0), (3, 3), (3, 3)])
    wanted = [map_coordinates(plane, at + 3, order=1, mode="constant") for plane in padded]
    np.testing.assert_allclose(got, wanted, atol=2e-3)


@pytest.mark.parametrize("noise", [0.15, 0.3])
def test_noisy_labels_are_smoothed_by_a_gaussian(tmp_path: Path, noise: float) -> None:
    """scipy on labels drawn at a fortieth of a cell; the pixels lie at every fifth."""
    cells = random_cells((12, 12))
    sigma, fine = Rule(noise).sigma, 40
    sheet = write_sheet(
        tmp_path / "labels.tif", cells, grid_of((12, 12), Affine(5, 0, 500_000, 0, -5, 5_800_000))
    )
    got = LabelField(evidence(sheet, noise=noise), image_grid((60, 60)), CPU).smoothed(Window(0, 0, 60, 60))
    drawn = one_hot(cells).repeat(fine, 1).repeat(fine, 2)
    smooth = np.stack([gaussian_filter(plane, sigma * fine, mode="constant", truncate=6) for plane in drawn])
    wanted = (smooth[:, 3::8, 3::8] + smooth[:, 4::8, 4::8]) / 2  # centres of pixels lie between two points
    np.testing.assert_allclose(got[:, 12:-12, 12:-12], wanted[:, 12:-12, 12:-12], atol=4e-3)


@pytest.mark.parametrize("noise", [0.1001, 0.11, 0.15, 0.2])
def test_a_gaussian_on_another_crs_is_that_of_an_aligned_grid(tmp_path: Path, noise: float) -> None:
    """By way of points among the cells: within a hundredth of the direct computation."""
    grid = image_grid((64, 64))
    turned = GeoBox(grid.shape, grid.transform * Affine.rotation(1e-4), grid.crs)
    sheet = write_sheet(tmp_path / "labels.tif", random_cells((9, 11)), OTHER_GRIDS["aligned"])
    window = Window(0, 0, 64, 64)
    direct = LabelField(evidence(sheet, noise=noise), grid, CPU).smoothed(window)
    between = LabelField(evidence(sheet, noise=noise), turned, CPU).smoothed(window)
    assert float((direct - between).abs().max()) < 0.01


@st.composite
def placed_labels(draw: st.DrawFn) -> tuple[GeoBox, NDArray[np.int16]]:
    """A grid of cells of any offset, size, turn and CRS around an image of 60 x 70 m, with holes."""
    shape = (draw(st.integers(3, 14)), draw(st.integers(3, 14)))
    side = draw(st.floats(1, 30))
    east, north = draw(st.floats(-60, 60)), draw(st.floats(-60, 60))
    turn = draw(st.sampled_from([0.0, 0.0, 17.0, 90.0]))
    crs = draw(st.sampled_from(["EPSG:32633", "EPSG:32633", "EPSG:32632", "EPSG:3857"]))
    x, y = Transformer.from_crs("EPSG:32633", crs, always_xy=True).transform(
        500_000 + east, 5_800_000 + north
    )
    transform = Affine.translation(x, y) * Affine.rotation(turn) * Affine.scale(side, -side)
    holes = draw(st.sampled_from([0.0, 0.3, 0.9]))
    return grid_of(shape, transform, crs), random_cells(shape, draw(st.integers(0, 9)), holes)


@settings(max_examples=60, deadline=None)
@given(
    labels=placed_labels(),
    noise=st.sampled_from([0.0, 0.14, 0.3]),
    rows=st.integers(1, 59),
    cols=st.integers(1, 69),
)
def test_tiles_are_the_whole_to_the_last_bit(
    labels: tuple[GeoBox, NDArray[np.int16]], noise: float, rows: int, cols: int
) -> None:
    cells, channels = labels
    probabilities = random_probabilities((60, 70))
    with tempfile.TemporaryDirectory() as folder:
        sheet = write_sheet(Path(folder) / "labels.tif", channels, cells)
        field = LabelField(evidence(sheet, noise=noise), image_grid((60, 70)), CPU)
        whole = field(probabilities.clone(), all_of(probabilities.clone()))
        for y in (slice(0, rows), slice(rows, 60)):
            for x in (slice(0, cols), slice(cols, 70)):
                tile = probabilities[:, y, x]
                assert torch.equal(field(tile, all_of(tile).shift(y.start, x.start)), whole[:, y, x])


def holed_sheet(folder: Path, name: str) -> Sheet:
    grid = OTHER_GRIDS[name]
    return write_sheet(folder / "labels.tif", random_cells(grid.shape, holes=0.2), grid)


@pytest.mark.parametrize("name", OTHER_GRIDS)
def test_strips_are_the_whole_to_the_last_bit(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A processor works on a few pixels at a time: as many as its caches hold."""
    sheet = holed_sheet(tmp_path, name)
    field = LabelField(evidence(sheet, noise=0.14), image_grid((60, 70)), CPU)
    probabilities = random_probabilities((45, 60))
    window = Window(9, 7, 45, 60)
    whole = field(probabilities.clone(), window)
    monkeypatch.setattr("citycover.evidence.field._AT_ONCE", (CLASSES + 1) * 32 * 17)  # 4 parts of 3 strips
    assert torch.equal(field(probabilities, window), whole)


@pytest.mark.parametrize("name", OTHER_GRIDS)
def test_parts_are_the_whole_to_the_last_bit(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Points among small cells are many: they are made for a part of a window at a time."""
    sheet = holed_sheet(tmp_path, name)
    probabilities = random_probabilities((60, 70))
    window = all_of(probabilities)
    whole = LabelField(evidence(sheet, noise=0.3), image_grid((60, 70)), CPU)(probabilities.clone(), window)
    monkeypatch.setattr("citycover.evidence.placed._SIDE", 8)  # two cells of four points
    parts = LabelField(evidence(sheet, noise=0.3), image_grid((60, 70)), CPU)(probabilities, window)
    assert torch.equal(parts, whole)


def test_scores_are_those_of_the_rule(tmp_path: Path) -> None:
    cells = random_cells((9, 11))
    sheet = write_sheet(tmp_path / "labels.tif", cells, OTHER_GRIDS["aligned"])
    probabilities = random_probabilities((40, 50))
    labels = evidence(sheet, noise=0.13)
    field = LabelField(labels, image_grid((40, 50)), CPU)
    s = field.smoothed(Window(0, 0, 40, 50)).numpy().astype(np.float64)
    column = (CLASSES, 1, 1)
    q = 0.87 * s / s.sum(0) + 0.13 * np.reshape(SHARES, column)
    ratio = np.log(probabilities.numpy()) - np.log(np.reshape(PRIOR, column))
    scores = labels.rule.strength * ratio + np.log(q + 1e-5)
    wanted = softmax(labels.rule.sharpness * scores, 0)
    got = field(probabilities.clone(), all_of(probabilities))
    np.testing.assert_allclose(got.numpy(), wanted, atol=1e-5)


def test_the_network_decides_alone_where_no_label_is_within_reach(tmp_path: Path) -> None:
    cells = random_cells((6, 6))
    cells[:, 3:] = -1
    sheet = write_sheet(
        tmp_path / "labels.tif", cells, grid_of((6, 6), Affine(10, 0, 500_000, 0, -10, 5_800_000))
    )
    probabilities = random_probabilities((60, 90))
    got = LabelField(evidence(sheet), image_grid((60, 90)), CPU)(
        probabilities.clone(), all_of(probabilities.clone())
    )
    assert torch.equal(got[:, :, 35:], probabilities[:, :, 35:])
    assert (got[:, :, :34] != probabilities[:, :, :34]).any(0).all()


def test_cells_without_a_label_do_not_vote(tmp_path: Path) -> None:
    """Between a labelled cell and a hole the label has all the weight."""
    cells = np.array([[2, -1]], np.int16)
    sheet = write_sheet(
        tmp_path / "labels.tif", cells, grid_of((1, 2), Affine(10, 0, 500_000, 0, -10, 5_800_000))
    )
    flat = torch.full((CLASSES, 10, 14), 0.25)
    got = LabelField(evidence(sheet, prior=(0.25,) * 4), image_grid((10, 14)), CPU)(flat, all_of(flat))
    assert float(got[2].min()) > 0.999


def test_sheets_make_one_and_where_they_overlap_all_vote(tmp_path: Path) -> None:
    cells = random_cells((8, 8))
    corner = Affine(10, 0, 500_000, 0, -10, 5_800_000)
    whole = write_sheet(tmp_path / "whole.tif", cells, grid_of((8, 8), corner))
    left = write_sheet(tmp_path / "left.tif", cells[:, :5], grid_of((8, 5), corner))
    right = write_sheet(
        tmp_path / "right.tif", cells[:, 5:], grid_of((8, 3), corner * Affine.translation(5, 0))
    )
    probabilities = random_probabilities((80, 80))
    grid = image_grid((80, 80))
    one = LabelField(evidence(whole), grid, CPU)(probabilities, all_of(probabilities))
    assert torch.equal(
        LabelField(evidence(left, right), grid, CPU)(probabilities, all_of(probabilities)), one
    )
    other = write_sheet(tmp_path / "other.tif", random_cells((8, 8), seed=5), grid_of((8, 8), corner))
    window = Window(0, 0, 80, 80)
    both = LabelField(evidence(whole, other), grid, CPU).smoothed(window)
    apart = [LabelField(evidence(sheet), grid, CPU).smoothed(window) for sheet in (whole, other)]
    assert torch.equal(both, apart[0] + apart[1])


def test_a_class_that_training_never_had_is_neither_for_nor_against(tmp_path: Path) -> None:
    """Its probability by the network changes nothing: the labels decide on it."""
    sheet = write_sheet(tmp_path / "labels.tif", random_cells((9, 11)), OTHER_GRIDS["aligned"])
    labels = evidence(sheet, prior=(0.5, 0.3, 0.2, 0.0))
    field = LabelField(labels, image_grid((30, 30)), CPU)
    probabilities = random_probabilities((30, 30))
    louder = probabilities.clone()
    louder[3] = 1
    torch.testing.assert_close(field(louder, all_of(louder)), field(probabilities, all_of(probabilities)))


def test_evidence_counts_by_the_slope_of_its_class(tmp_path: Path) -> None:
    sheet = write_sheet(tmp_path / "labels.tif", random_cells((9, 11)), OTHER_GRIDS["aligned"])
    slopes = (1.0, 0.55, 0.0, 0.24)  # the second and the last lie between steps
    labels = replace(evidence(sheet, noise=0.3), slopes=slopes)
    field, column = LabelField(labels, image_grid((40, 50)), CPU), (CLASSES, 1, 1)
    s = field.smoothed(Window(0, 0, 40, 50)).numpy().astype(np.float64)
    q = 0.7 * s / s.sum(0) + 0.3 * np.reshape(SHARES, column)
    probabilities = random_probabilities((40, 50))
    ratio = np.log(probabilities.numpy()) - np.log(np.reshape(PRIOR, column))
    powers = np.floor(np.array(slopes) * labels.rule.strength * PARTS) / PARTS
    doubts = np.ceil((1 - np.array(slopes)) * PARTS) / PARTS
    said = np.reshape(powers, column) * ratio
    known = np.reshape(slopes, column) * (q + 1e-5)
    mean = (known * np.exp(said)).sum(0) / known.sum(0)  # of what is said of known classes
    scores = said + np.reshape(doubts, column) * np.log(mean) + np.log(q + 1e-5)
    wanted = softmax(labels.rule.sharpness * scores, 0)
    got = field(probabilities.clone(), all_of(probabilities))
    np.testing.assert_allclose(got.numpy(), wanted, atol=1e-4)


def test_a_class_that_nobody_can_tell_keeps_the_share_that_its_labels_give_it(tmp_path: Path) -> None:
    sheet = write_sheet(tmp_path / "labels.tif", random_cells((9, 11)), OTHER_GRIDS["aligned"])
    labels = replace(evidence(sheet), slopes=(1.0, 1.0, 1.0, 0.0))
    field = LabelField(labels, image_grid((40, 50)), CPU)
    s = field.smoothed(Window(0, 0, 40, 50))
    probabilities = random_probabilities((40, 50))
    got = field(probabilities.clone(), all_of(probabilities))
    torch.testing.assert_close(got[3], (s / s.sum(0))[3], atol=2e-4, rtol=0)  # whatever is said of the others


def test_pixels_without_a_vote_stay_numbers(tmp_path: Path) -> None:
    sheet = write_sheet(tmp_path / "labels.tif", random_cells((9, 11)), OTHER_GRIDS["aligned"])
    got = LabelField(evidence(sheet), image_grid((30, 30)), CPU)(
        torch.zeros(CLASSES, 30, 30), all_of(torch.zeros(CLASSES, 30, 30))
    )
    assert torch.isfinite(got).all()


def test_evidence_travels_to_workers(tmp_path: Path) -> None:
    sheet = write_sheet(tmp_path / "labels.tif", random_cells((9, 11)), OTHER_GRIDS["aligned"])
    labels = pickle.loads(pickle.dumps(evidence(sheet, noise=0.2)))
    probabilities = random_probabilities((30, 30))
    here, there = (
        LabelField(given, image_grid((30, 30)), CPU)(probabilities.clone(), all_of(probabilities.clone()))
        for given in (evidence(sheet, noise=0.2), labels)
    )
    assert torch.equal(here, there)
