"""`report.html` in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from pages import SCHEMES, SIZES, Keep, opened, problems
from reported import LEGEND, show

from citycover.derive.change import Change, ChangeMatrix
from citycover.evaluate.confusion import Confusion
from citycover.evaluate.evaluate import Evaluation
from citycover.evaluate.reliability import Reliability
from citycover.show.accuracy import NOT_ASSESSED, accuracy_section
from citycover.show.change import NOT_COMPARED, change_section
from citycover.show.report import report_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with every section."""
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 3, (40, 60)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    image = rng.integers(0, 255, (*classes.shape, 3), np.uint8)
    sure = np.where(classes > 0, rng.integers(90, 255, classes.shape), 0).astype(np.uint8)
    counts = rng.integers(0, 5000, (3, 3))
    truth, mapped = rng.integers(0, 3, (2, 5000))
    reliability = Reliability.of(
        truth, np.where(rng.random(5000) < 0.6, truth, mapped), rng.integers(90, 255, 5000)
    )
    judged = Evaluation(LEGEND, Confusion(counts, 7), "raster", reliability=reliability)
    change = Change(LEGEND, ChangeMatrix(None, counts / 4, counts * 1.0, 0.0))
    facts = {"before": "product-2018", **change.facts(), "transitions": list(change.rows())}
    page = report_page(show(image=image, valid=classes > 0, classes=classes, confidence=sure))
    page = page.replace(NOT_ASSESSED, accuracy_section({"truth": "t.tif", **judged.report()}, LEGEND))
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(page.replace(NOT_COMPARED, change_section(facts, LEGEND)))
    return path


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_is_quiet_asks_nobody_and_everybody_can_use_it(
    browser: Browser, report: Path, size: str, scheme: str, keep: Keep
) -> None:
    with opened(browser, report.as_uri(), size, scheme) as (page, heard):
        keep(page, f"report-{size}-{scheme}", whole=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
        assert problems(page) == []
    assert heard.complaints == [] and heard.outside == []


def test_the_edge_moves(browser: Browser, report: Path) -> None:
    with opened(browser, report.as_uri()) as (page, _):
        swipe = page.locator("#swipe")
        page.locator("input[type=range]").fill("100")
        image = swipe.screenshot()
        page.locator("input[type=range]").focus()
        page.keyboard.press("Home")
        assert (
            page.evaluate("getComputedStyle(document.getElementById('swipe')).getPropertyValue('--cut')")
            == "0%"
        )
        assert swipe.screenshot() != image


def test_on_paper_image_and_map_lie_side_by_side(browser: Browser, report: Path) -> None:
    with opened(browser, report.as_uri()) as (page, _):
        page.emulate_media(media="print")
        left, right = (
            page.locator(f"#swipe img[alt='{alt}']").bounding_box() for alt in ("The image", "The map")
        )
        assert left is not None and right is not None and left["x"] + left["width"] <= right["x"]
        assert not page.locator("input[type=range]").is_visible()
