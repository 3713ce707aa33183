"""The page of `citycover view`, used as people use it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from mapped import patchy, write_product
from numpy.typing import NDArray
from pages import SCHEMES, SIZES, Keep, opened, problems, ready, settled, shown, until
from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("dates")
    for seed, year in enumerate(("2018", "2022")):
        product = write_product(folder / year, patchy((300, 400), seed=seed, scale=20))
        run = json.loads((product / "run.json").read_text())
        (product / "run.json").write_text(json.dumps(run | {"time": f"{year}-06-01T10:00:00Z"}))
    with shown(folder) as address:
        yield address


def stage(page: Page) -> NDArray[np.uint8]:
    return np.array(Image.open(io.BytesIO(page.locator("#stage").screenshot())).convert("RGB"))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_is_quiet_asks_nobody_else_and_everybody_can_use_it(
    browser: Browser, address: str, size: str, scheme: str, keep: Keep
) -> None:
    with opened(browser, address, size, scheme) as (page, heard):
        ready(page)
        page.locator("#right canvas").click(
            position={"x": 0.7 * SIZES[size][0] * (0.7 if size == "desk" else 1), "y": 200}
        )
        page.wait_for_selector("#point table")
        settled(page)
        keep(page, f"view-{size}-{scheme}")
        page.locator("summary").click()
        assert problems(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
        page.locator("#as-sides").click()
        page.select_option("#right-layer", "between")
        settled(page)
        keep(page, f"view-{size}-{scheme}-change")
        assert problems(page) == []
    assert heard.complaints == [] and heard.outside == []


def test_the_edge_is_dragged_and_moved_by_keys(browser: Browser, address: str) -> None:
    with opened(browser, address) as (page, _):
        ready(page)
        edge = page.locator("#edge")
        box = edge.bounding_box()
        assert box is not None
        before = stage(page)
        middle = box["x"] + box["width"] / 2
        page.mouse.move(middle, 400)
        page.mouse.down()
        page.mouse.move(middle - 200, 400, steps=4)
        page.mouse.up()
        share = int(edge.get_attribute("aria-valuenow") or 0)
        assert share == pytest.approx(50 - 100 * 200 / before.shape[1], abs=1)
        settled(page)
        after = stage(page)
        between = slice(int(middle) - 150, int(middle) - 50)
        assert (after[200:600, between] != before[200:600, between]).any(2).mean() > 0.2, (
            "the other map shows there"
        )
        page.mouse.move(middle, 700)
        page.mouse.move(middle + 100, 700)
        assert edge.get_attribute("aria-valuenow") == str(share), "it was let go"
        edge.focus()
        page.keyboard.press("End")
        assert edge.get_attribute("aria-valuenow") == "100"
        page.keyboard.press("ArrowLeft")
        assert edge.get_attribute("aria-valuenow") == "98"


def test_a_class_is_switched_off_and_on(browser: Browser, address: str) -> None:
    with opened(browser, address) as (page, _):
        ready(page)
        whole = stage(page)
        box = page.locator("#areas input").first
        assert box.is_checked()
        box.press("Space")
        settled(page)
        page.wait_for_timeout(300)
        without = stage(page)
        assert (without != whole).any(2).mean() > 0.05
        page.locator("#areas label").first.click()
        settled(page)
        page.wait_for_timeout(300)
        assert (stage(page) != whole).any(2).mean() < 0.01


def test_a_click_says_class_confidence_and_dates(browser: Browser, address: str) -> None:
    with opened(browser, address) as (page, _):
        ready(page)
        page.mouse.click(500, 500)
        page.wait_for_selector("#point table")
        said = page.locator("#point").inner_text()
        assert "2018" in said and "2022" in said and "50 %" in said and "class" in said
        page.keyboard.press("Escape")
        assert page.locator("#point").inner_text() == ""
        page.locator("#left canvas").focus()
        page.keyboard.press("Enter")
        page.wait_for_selector("#point table")
        assert page.locator(".mark").count() == 2


def test_areas_are_those_of_what_is_in_view(browser: Browser, address: str) -> None:
    with opened(browser, address) as (page, _):
        ready(page)
        page.select_option("#left-map", "1")
        until(page, "document.querySelector('#areas thead').innerText.includes('%')")
        settled(page)
        whole = page.evaluate("get(`areas/1?in=${windowSeen()}`)")
        page.click("#in")
        page.wait_for_timeout(600)
        settled(page)
        part = page.evaluate("get(`areas/1?in=${windowSeen()}`)")
        total = [sum(row["m2"] for row in one["classes"]) for one in (whole, part)]
        assert total[0] == pytest.approx(4 * 300 * 400 * 0.96, rel=0.01) and total[1] < 0.8 * total[0]
        hectares = part["classes"][0]["m2"] / 1e4  # shown once the page has asked for them, too
        shown = "parseFloat(document.querySelector('#areas tbody td').innerText)"
        until(page, f"Math.abs({shown} - {hectares}) < 0.006")


def test_keys_choose_layers_and_arrangement(browser: Browser, address: str) -> None:
    with opened(browser, address) as (page, _):
        ready(page)
        assert page.locator("h1").inner_text() == "2018 and 2022"
        page.keyboard.press("2")
        assert page.locator("#right-layer").input_value() == "confidence"
        assert page.locator("#ramp").is_visible()
        page.keyboard.press("s")
        assert page.locator("#stage").get_attribute("class") == "sides-by-side"
        page.keyboard.press(",")
        assert page.locator("#opacity").input_value() == "75"
        assert page.evaluate("panes[1].getPaintProperty('over', 'raster-opacity')") == 0.75


def test_both_maps_move_as_one(browser: Browser, address: str) -> None:
    with opened(browser, address) as (page, _):
        ready(page)
        for start in (200, 700):
            page.mouse.move(start, 500)
            page.mouse.down()
            page.mouse.move(start + 60, 440, steps=3)
            page.mouse.up()
            page.wait_for_timeout(400)
            settled(page)
            centres = page.evaluate("panes.map((pane) => [...pane.getCenter().toArray(), pane.getZoom()])")
            assert centres[0] == pytest.approx(centres[1], abs=1e-9)


def test_what_cannot_be_read_any_more_is_said(browser: Browser, tmp_path: Path) -> None:
    product = write_product(tmp_path / "product", patchy((60, 80)))
    with shown(product) as address, opened(browser, address) as (page, _):
        ready(page)
        (product / "landcover.tif").unlink()
        page.click("#in")
        page.wait_for_selector("#trouble:not([hidden])")
        assert "cannot be read any more" in page.locator("#trouble").inner_text()
