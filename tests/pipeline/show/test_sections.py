"""Accuracy and change in the report: what was reckoned is what is said, and it gets in whole."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from making import make_record
from reported import EVIL, LEGEND, parse, show, text_of

from citycover.derive.change import Change, ChangeMatrix
from citycover.errors import ConfigError
from citycover.evaluate.confusion import Confusion
from citycover.evaluate.estimate import StratifiedSample
from citycover.evaluate.evaluate import Evaluation
from citycover.evaluate.reliability import Reliability
from citycover.product.names import SIGN
from citycover.show.accuracy import accuracy_section
from citycover.show.change import change_section
from citycover.show.report import report_page
from citycover.show.revise import check_report, revise_report

COUNTS = np.array([[60, 5, 0], [10, 20, 0], [0, 0, 0]])


def facts(**changes: Any) -> dict[str, Any]:
    made = Evaluation(LEGEND, Confusion(COUNTS, 7), "raster", **changes)
    return {"truth": EVIL, **made.report()}


def said(section: str) -> str:
    return " ".join(" ".join(ET.fromstring(section).itertext()).split())


def test_accuracy_is_said_by_class_and_matrix() -> None:
    section = accuracy_section(facts(), LEGEND)
    text = said(section)
    assert "84.2 % of 95 pixels are right; 7" not in text and "84.2 % of 95 pixels are right" in text
    assert "7 of the truth have no class on the map" in text and "85.7 % 92.3 %" in text
    assert EVIL in text and "<script" not in section
    cells = [cell.text for cell in ET.fromstring(section).iter("td") if "heat" in cell.get("style", "")]
    assert cells == [str(n) for n in COUNTS.ravel()]
    assert "<svg" not in section, "without confidence there is no diagram"


def test_a_class_that_does_not_occur_has_no_figures() -> None:
    assert "never seen - - - 0" in said(accuracy_section(facts(), LEGEND))


def test_a_sample_gives_intervals_and_areas() -> None:
    sample = StratifiedSample.of_matrix(COUNTS.T, [7000, 3000, 0])
    section = accuracy_section(facts(sample=sample, hectares=100.0) | {"truth_kind": "points"}, LEGEND)
    adjusted = sample.overall_accuracy
    text = said(section)
    assert f"{100 * adjusted.value:.1f} ± {100 * adjusted.margin:.1f} %" in text
    assert f"{100 * sample.areas[1].value:.1f} ± {100 * sample.areas[1].margin:.1f}" in text
    assert "estimated from 95 points" in text


def test_the_diagram_has_a_dot_for_each_bin() -> None:
    truth, mapped = np.array([0, 1, 1, 0]), np.array([0, 0, 1, 0])
    reliability = Reliability.of(truth, mapped, np.array([250, 250, 130, 128]))
    section = accuracy_section(facts(reliability=reliability), LEGEND)
    dots = list(ET.fromstring(section).iter("circle"))
    assert len(dots) == 2 and "right 50 %, 2 pixels" in (dots[1][0].text or "")


def change() -> dict[str, Any]:
    metres = np.array([[3e4, 2e4, 0], [5e3, 1e4, 0], [0, 0, 0]])
    found = Change(LEGEND, ChangeMatrix(None, metres / 4, metres, 0.0))
    return {"before": EVIL, **found.facts(), "transitions": list(found.rows())}


def test_change_is_said_largest_first() -> None:
    section = change_section(change(), LEGEND)
    text = said(section)
    assert "2.50 ha , 38.5% of 6.50 ha, differ from" in text and EVIL in text and "<script" not in section
    rows = [row.get("scope") for row in ET.fromstring(section).iter("th")]
    assert rows.count("row") == 2 + 3, "two transitions, three classes"
    assert text.index("water & ice → ") < text.index("→ water & ice")


@pytest.fixture
def product(tmp_path: Path) -> Path:
    folder = tmp_path / "product"
    folder.mkdir()
    (folder / "report.html").write_text(report_page(show(make_record(LEGEND))))
    item = {
        "properties": {"processing:software": {"citycover": "1"}},
        "assets": {"report.html": {"href": "./report.html"}, "preview": {"href": "./preview.png"}},
    }
    (folder / SIGN).write_text(json.dumps(item))
    return folder


def test_sections_get_into_the_report_and_replace_themselves(product: Path) -> None:
    revise_report(product, accuracy_section(facts(), LEGEND))
    revise_report(product, change_section(change(), LEGEND))
    path = revise_report(product, accuracy_section(facts() | {"overall_accuracy": 0.5}, LEGEND))
    page = path.read_text()
    text = text_of(page)
    assert "50.0 % of 95 pixels" in text and "84.2" not in text and "38.5%" in text
    assert [node.get("id") for node in parse(page).iter("section") if node.get("id")] == [
        "accuracy",
        "change",
    ]
    asset = json.loads((product / SIGN).read_text())["assets"]["report.html"]
    assert asset["file:checksum"] == "1220" + hashlib.sha256(path.read_bytes()).hexdigest()
    assert asset["file:size"] == path.stat().st_size


def test_nothing_else_of_the_page_changes(product: Path) -> None:
    before = (product / "report.html").read_text()
    after = revise_report(product, accuracy_section(facts(), LEGEND)).read_text()
    cut = re.compile(r'<section id="accuracy">.*?</section>', re.DOTALL)
    assert cut.sub("", before) == cut.sub("", after)


def test_what_takes_no_section_is_refused(product: Path, tmp_path: Path) -> None:
    check_report(product)
    page = (product / "report.html").read_text().replace('id="change"', 'id="old"')
    (product / "report.html").write_text(page)
    with pytest.raises(ConfigError, match="written by an earlier version"):
        check_report(product)
    (product / SIGN).unlink()
    with pytest.raises(ConfigError, match="is none that is whole"):
        check_report(product)
