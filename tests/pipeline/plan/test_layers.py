import subprocess
import sys

import pytest
from making import make_card

from citycover.plan.layers import CLASSES, CONFIDENCE, LAYERS, Layer, bytes_per_pixel, layers_named
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
    layer = Layer("probabilities", "p.tif", "p", of_probabilities=lambda p: p, per_class=True)
    assert (layer.shape(5, (3, 4)), CLASSES.shape(5, (3, 4))) == ((5, 3, 4), (3, 4))
    assert bytes_per_pixel((CLASSES, layer), 5) == 6


def test_an_unknown_layer_is_named() -> None:
    with pytest.raises(ValueError, match="nothing"):
        layers_named(["classes", "nothing"])


def test_a_layer_is_made_of_one_thing() -> None:
    with pytest.raises(ValueError, match="must be made of"):
        Layer("x", "x.tif", "x")
