"""The built-in models: the shipped files are what the code makes, and their rules mean something."""

from pathlib import Path

import pytest
import torch

from citycover.model.archive import read_model_file
from citycover.model.builtin import RULES, builtin_path
from citycover.model.network import load_model
from citycover_models.builtin.rules import write_builtins
from citycover_models.catalogue.registry import find_preset

CLASSES = {"water": 1, "dense": 2, "sparse": 3, "bare": 4, "built": 5}
# Typical reflectances: red, green, blue, near infrared.
SPECTRA = {
    "water": (0.03, 0.05, 0.06, 0.02),
    "dense": (0.03, 0.06, 0.03, 0.40),
    "bare": (0.28, 0.21, 0.15, 0.36),
    "built": (0.30, 0.30, 0.31, 0.32),
}


def test_the_shipped_files_are_what_the_code_makes(tmp_path: Path) -> None:
    for report in write_builtins(tmp_path):
        shipped = read_model_file(builtin_path(report.card.name))
        made = read_model_file(report.path)
        assert made.card == shipped.card
        ours, _ = load_model(made.path, "cpu")
        theirs, file = load_model(shipped.path, "cpu")
        card = file.card
        torch.manual_seed(0)
        window = torch.randint(0, 255, (1, len(card.groups[0].bands), 70, 90), dtype=torch.uint8)
        if "uint8" not in card.groups[0].dtypes:
            window = window.float() * 30
        assert ours(window).equal(theirs(window))


def digital_numbers(name: str, bands: tuple[str, ...], reflectance: tuple[float, ...]) -> torch.Tensor:
    order = {"red": 0, "B04": 0, "green": 1, "B03": 1, "blue": 2, "B02": 2, "nir": 3, "B08": 3}
    values = torch.tensor([reflectance[order[b]] for b in bands])
    numbers = (values * 10_000) if name == "spectral-s2" else (values * 255).round()
    numbers = numbers.view(1, -1, 1, 1).expand(1, -1, 32, 32)
    return numbers if name == "spectral-s2" else numbers.to(torch.uint8)


@pytest.mark.parametrize(
    ("name", "surface"),
    # At 10 m built-up ground is told from bare by its roughness, which a uniform patch has not.
    [*(("spectral-rgbn", s) for s in SPECTRA), *(("spectral-s2", s) for s in SPECTRA if s != "built")],
)
def test_typical_spectra_are_what_they_are(name: str, surface: str) -> None:
    network, model = load_model(builtin_path(name), "cpu")
    card = model.card
    scores = network(digital_numbers(name, card.groups[0].names, SPECTRA[surface]))
    assert int(scores[0, :, 16, 16].argmax()) + 1 == CLASSES[surface]


@pytest.mark.parametrize("name", RULES)
def test_a_pixel_sees_no_further_than_the_card_says(name: str) -> None:
    preset = find_preset(name)
    network, card = preset.build().eval(), preset.card()
    torch.manual_seed(0)
    window = torch.rand(1, len(card.groups[0].bands), 41, 41) * 100
    window.requires_grad_()
    network(window)[0, :, 20, 20].sum().backward()
    seen = window.grad[0].abs().sum(0) > 0
    rows = seen.any(1).nonzero()
    reach = max(20 - int(rows.min()), int(rows.max()) - 20)
    assert 0 < reach <= card.trim
    assert card.receptive_field == 2 * reach + 1
