"""A product as a notebook shows it."""

from __future__ import annotations

import base64
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from mapped import UTM, write_product
from PIL import Image

from citycover.classes.legend import Legend, LegendClass
from citycover.errors import ConfigError
from citycover.product.product import Product

LEGEND = Legend(
    name="test",
    nodata=0,
    classes=(
        LegendClass(id=1, name="<script>alert(1)</script>", color="#0000ff"),
        LegendClass(id=2, name="Land & lawn", color="#00ff00"),
        LegendClass(id=3, name="Never there", color="#ff0000"),
    ),
)


@pytest.fixture
def product(tmp_path: Path) -> Path:
    """2 m pixels: 3 of the first class, 1 of the second, 2 of none."""
    folder = write_product(tmp_path / "a<b", np.array([[1, 1, 0], [1, 2, 0]], np.uint8), legend=LEGEND)
    classes = [
        {"title": LEGEND.names[0], "value": 1, "count": 3},
        {"title": LEGEND.names[1], "value": 2, "count": 1},
        {"title": LEGEND.names[2], "value": 3, "count": 0},
        {"name": "nodata", "value": 0},
    ]
    assets = {
        "landcover": {"href": "./landcover.tif", "classification:classes": classes},
        "run": {"href": "./run.json"},
    }
    place = {"proj:code": "EPSG:32633", "proj:shape": [2, 3], "proj:transform": list(UTM)[:6]}
    (folder / "item.json").write_text(json.dumps({"properties": place, "assets": assets}))
    return folder


def test_areas_are_pixels_times_their_size(product: Path) -> None:
    assert Product.read(product).areas() == {LEGEND.names[0]: 12.0, "Land & lawn": 4.0}


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_notebook_shows_picture_and_areas_and_runs_nothing_that_a_name_says(product: Path) -> None:
    Image.new("RGB", (2000, 500), "red").save(product / "preview.png")
    page = Page()
    page.feed(Product.read(product)._repr_html_())
    (source,) = [attrs["src"] for tag, attrs in page.tags if tag == "img"]
    assert source is not None and source.startswith("data:image/webp;base64,")
    with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as picture:
        assert picture.size == (900, 225)
    assert "script" not in {tag for tag, _ in page.tags}
    for said in ("a<b", "<script>alert(1)</script>", "Land & lawn", "75.0%", "25.0%"):
        assert said in page.text
    assert "Never there" not in page.text


def test_a_product_without_a_picture_shows_its_areas(product: Path) -> None:
    assert "<img" not in Product.read(product)._repr_html_()


def test_what_is_no_whole_product_is_refused(product: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no item\.json"):
        Product.read(tmp_path)
    (product / "landcover.tif").unlink()
    with pytest.raises(ConfigError, match=r"lacks landcover\.tif"):
        Product.read(product)
    (product / "item.json").write_text('{"assets": []}')
    with pytest.raises(ConfigError, match=r"holds no item\.json"):
        Product.read(product)
