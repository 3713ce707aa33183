"""The trained built-in models: honest about themselves, and better than the rules on a practice city."""

from __future__ import annotations

from pathlib import Path

import pytest

from citycover.classes.legend import read_legend
from citycover.classes.table import table_between
from citycover.evaluate.rasters import compare_rasters
from citycover.job.request import Imagery, MapRequest
from citycover.model.archive import read_model_file
from citycover.model.builtin import FOLDER, TRAINED, builtin_path, read_builtins
from citycover.run.map import map_scene
from citycover.synth.write import write_city
from citycover_models.builtin.urban import BANDS
from citycover_models.catalogue.counts import trained_facts


@pytest.mark.parametrize("name", TRAINED)
def test_the_card_says_what_it_was_trained_on_and_how_good_it_is(name: str) -> None:
    card = read_model_file(builtin_path(name)).card
    assert card.name == name and card.groups[0].names == BANDS[name] and card.gsd == (0.5, 2.0)
    assert "recipe urban" in card.training and "has not seen: mean IoU" in card.training
    assert (FOLDER / f"{name}.pt").stat().st_size < 5_000_000


def test_they_are_taken_only_by_name() -> None:
    assert not {model.card.name for model in read_builtins()} & set(TRAINED)


@pytest.mark.parametrize("name", TRAINED)
def test_counts_are_those_of_the_network_inside(name: str) -> None:
    import torch

    network = torch.jit.load(str(builtin_path(name)))
    facts = next(row for row in trained_facts() if row.name == name)
    assert sum(p.numel() for p in network.parameters()) == facts.parameters
    assert facts.bands == BANDS[name]


def test_it_maps_a_city_it_has_not_seen_better_than_the_rules(tmp_path: Path) -> None:
    write_city(tmp_path / "city", 320, 300)
    legend = read_legend("landcover5")
    scores = {}
    for name in ("urban-rgbn-1m", "spectral-rgbn"):
        out = tmp_path / name
        map_scene(MapRequest(Imagery((str(tmp_path / "city" / "image.tif"),)), out, name))
        table = table_between(read_legend("city"), legend)
        found = compare_rasters(out / "landcover.tif", tmp_path / "city" / "truth.tif", legend, None, table)
        scores[name] = found.overall_accuracy
    assert scores["urban-rgbn-1m"] > scores["spectral-rgbn"] + 0.1
