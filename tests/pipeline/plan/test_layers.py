import subprocess
import sys

import pytest
from making import make_card

from citycover.errors import ConfigError
from citycover.plan.layers import (
    CLASSES,
    CONFIDENCE,
    DISAGREEMENT,
    LAYERS,
    PRESENT,
    PROBABILITIES,
    bytes_per_pixel,
    layers_named,
    layers_of,
)
from citycover.product.names import PRODUCT_FILES


def test_the_table_is_read_without_torch() -> None:
    script = "import sys, citycover.plan.layers; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_names_and_files_are_each_once() -> None:
    for of in (lambda layer: layer.name, lambda layer: layer.file):
        assert len({of(layer) for layer in LAYERS}) == len(LAYERS)
    assert {layer.file for layer in LAYERS} <= PRODUCT_FILES


def test_the_legend_says_what_is_nodata_of_classes_alone() -> None:
    legend = make_card(32, 2, 2).legend.model_copy(update={"nodata": 9})
    assert (CLASSES.nodata_of(legend), CONFIDENCE.nodata_of(legend)) == (9, 0)


def test_a_layer_a_class_has_a_band_each() -> None:
    assert (PROBABILITIES.shape(5, (3, 4)), CLASSES.shape(5, (3, 4))) == ((5, 3, 4), (3, 4))
    assert bytes_per_pixel((CLASSES, PROBABILITIES), 5) == 6


def test_an_unknown_layer_is_named() -> None:
    with pytest.raises(ValueError, match="nothing"):
        layers_named(["classes", "nothing"])


def test_layers_are_asked_for_by_name_and_come_in_the_order_of_the_table() -> None:
    named = [layer.name for layer in layers_of("classes", ["margin", "probabilities"])]
    assert named == ["classes", "confidence", "probabilities", "margin"]
    assert PRESENT in layers_of("labels") and PRESENT not in layers_of("classes")
    with pytest.raises(ConfigError, match="disagreement is of networks that are averaged, and there is one"):
        layers_of("classes", ["disagreement"])
    assert DISAGREEMENT in layers_of("classes", ["disagreement"], several=True)
    with pytest.raises(ConfigError, match=r"no layer 'present' .* probabilities, entropy, second, margin"):
        layers_of("classes", ["present"])
