"""A product that lost a file, or the end of one: every verb refuses it, or says the same as of the whole one.

`REFUSED` is the table: what each lack takes away; everything else must come out as before.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import write_map
from starlette.testclient import TestClient

from citycover.derive.areas import zonal_areas
from citycover.derive.compare import compare
from citycover.derive.refine import Steps, refine
from citycover.derive.vectorize import vectorize
from citycover.errors import CitycoverError
from citycover.evaluate.evaluate import evaluate
from citycover.evaluate.request import EvaluationRequest
from citycover.product.collection import collect
from citycover.product.open import open_product
from citycover.product.product import Product
from citycover.product.record import read_record
from citycover.show.revise import check_report
from citycover.view.server import open_app

CHUNK = "landcover.zarr/classes/c/0/0"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_map(tmp_path_factory.mktemp("made"), (64, 80))


def _opened(product: Path) -> dict[str, int]:
    with open_product(product) as maps:
        return {str(name): int(layer.sum()) for name, layer in maps.compute().items()}


def _opened_cogs(product: Path) -> dict[str, int]:
    shutil.rmtree(product / "landcover.zarr", ignore_errors=True)
    return _opened(product)


def _refined(product: Path) -> dict[str, int]:
    tidy = product.parent.parent / "tidy"
    refine(product, tidy, Steps(majority=3), overwrite=True)
    return _opened(tidy)


def _vectorized(product: Path) -> list[str]:
    out = product.parent / "areas.geojsonl"
    vectorize(product, out)
    return out.read_text().splitlines()


def _looked_at(product: Path) -> Any:
    app, (shown,) = open_app([product], "127.0.0.1")
    there = ",".join(map(str, shown.bounds))
    answer = TestClient(app, base_url="http://127.0.0.1").get(f"/areas/0?in={there}")
    if answer.status_code != 200:
        raise CitycoverError(answer.json()["error"] + "; give another file")
    return answer.json()


VERBS: dict[str, Callable[[Path, Path], Any]] = {
    "stats": lambda product, _: list(zonal_areas(product).rows()),
    "vectorize": lambda product, _: _vectorized(product),
    "compare before": lambda product, whole: list(compare(product, whole).rows()),
    "compare after": lambda product, whole: list(compare(whole, product).rows()),
    "refine": lambda product, _: _refined(product),
    "evaluate": lambda product, whole: evaluate(EvaluationRequest(mapped=product, truth=whole)).report(),
    "view": lambda product, _: _looked_at(product),
    "inspect": lambda product, _: read_record(product / "run.json").facts(),
    "collect": lambda product, _: len(collect(product.parent).products),
    "notebook": lambda product, _: Product.read(product).areas(),
    "report": lambda product, _: check_report(product).name,
    "open cogs": lambda product, _: _opened_cogs(product),
    "open zarr": lambda product, _: _opened(product),
}

PIXELS = {"stats", "vectorize", "compare before", "compare after", "refine", "evaluate", "view", "open cogs"}
LISTED = {"collect", "notebook"}
"""What looks whether all is there that `item.json` lists."""

REFUSED: dict[tuple[str, str], set[str]] = {
    ("landcover.tif", "removed"): {*VERBS} - {"inspect", "report"},
    ("landcover.tif", "cut"): PIXELS | LISTED,
    ("landcover.tif", "empty"): PIXELS | LISTED,
    ("confidence.tif", "removed"): (PIXELS | LISTED | {"open zarr"}) - {"evaluate"},
    ("confidence.tif", "cut"): (PIXELS | LISTED) - {"compare before", "compare after"},
    ("probabilities.tif", "removed"): LISTED,
    ("probabilities.tif", "cut"): {"open cogs"} | LISTED,
    ("run.json", "removed"): {*VERBS} - {"report"},
    ("run.json", "cut"): {*VERBS} - {"report"},
    ("item.json", "removed"): LISTED | {"report"},
    ("item.json", "cut"): LISTED | {"report"},
    ("report.html", "removed"): LISTED | {"report"},
    ("report.html", "empty"): {"report"},
    ("landcover.qml", "removed"): LISTED,
    ("landcover.qml", "cut"): set(),
    ("preview.png", "removed"): LISTED,
    ("landcover.tif.aux.xml", "removed"): LISTED,
    ("landcover.zarr", "removed"): LISTED,
    ("landcover.zarr/zarr.json", "removed"): {"open zarr"},
    ("landcover.zarr/zarr.json", "cut"): {"open zarr"},
    (CHUNK, "removed"): {"open zarr"},
    (CHUNK, "cut"): {"open zarr"},
    (CHUNK, "empty"): {"open zarr"},
}

TOLERATED = {("confidence.tif", "removed", "evaluate"), ("probabilities.tif", "removed", "open cogs")}
"""Right as far as it goes: no reliability, no probabilities."""


def _damage(path: Path, how: str) -> None:
    if how == "removed" and path.is_dir():
        shutil.rmtree(path)
    elif how == "removed":
        path.unlink()
    else:
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2] if how == "cut" else b"")


@pytest.fixture(scope="module")
def whole(made: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What is said of the product as it was."""
    place = tmp_path_factory.mktemp("whole") / "maps/city"
    shutil.copytree(made, place)
    return {name: say(place, made) for name, say in VERBS.items()}


@pytest.mark.parametrize(("file", "how"), REFUSED)
def test_it_is_refused_or_all_is_right(
    made: Path, whole: dict[str, Any], tmp_path: Path, file: str, how: str
) -> None:
    """`CitycoverError` is exit code 2, or 4: see `test_endings`."""
    place = tmp_path / "maps/city"
    for name, say in VERBS.items():
        shutil.rmtree(tmp_path / "maps", ignore_errors=True)
        shutil.copytree(made, place)
        if name == "open cogs" and file.startswith("landcover.zarr"):
            continue
        _damage(place / file, how)
        if name in REFUSED[file, how]:
            with pytest.raises((CitycoverError, OSError)) as error:
                say(place, made)
            told = str(error.value)
            if name != "open cogs":  # pixels that dask asks for later, out of our hands
                assert isinstance(error.value, CitycoverError) and error.value.exit_code == 2, told
                assert any(f" {what}" in told for what in ("give", "copy", "map", "name one")), told
        elif (file, how, name) not in TOLERATED:
            assert say(place, made) == whole[name], name
        else:
            assert say(place, made), name


def test_a_part_among_products_is_left_out_with_a_word(
    made: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("whole", "part"):
        shutil.copytree(made, tmp_path / name)
    (tmp_path / "part/item.json").unlink()
    assert collect(tmp_path).products == (tmp_path / "whole",)
    assert "part is left out" in caplog.text and "copy it again" in caplog.text
