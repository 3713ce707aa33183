"""The page that shows a product: whole in itself, well-formed, and no text of others is markup."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from making import make_card, make_record
from reported import EVIL, LEGEND, given, parse, show, text_of

from citycover.geometry.window import Window
from citycover.model.card import UNTRAINED
from citycover.product.record import Timing
from citycover.read.reader import Hole
from citycover.show.report import report_page, write_report


def test_the_page_fetches_nothing() -> None:
    page = report_page(show())
    sources = [
        value for node in parse(page).iter() for name, value in node.items() if name in ("src", "href")
    ]
    assert len(sources) == 3 and all(source.startswith("data:image/") for source in sources)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"base64,[^\"]*", "", page))


def test_names_of_files_classes_and_words_of_others_are_text() -> None:
    hole = Hole(Window(3, 4, 5, 6), EVIL, EVIL)
    record = make_record(LEGEND, given=given(command=(EVIL,), time=EVIL), holes=(hole,), warnings=(EVIL,))
    page = report_page(show(record, title=EVIL, crs=EVIL))
    root = parse(page)
    assert [node.tag for node in root.iter()].count("script") == 1
    assert text_of(page).count("alert('x')") >= 7 and "<script>alert" not in page


def test_a_thousand_holes_do_not_fill_the_page() -> None:
    holes = tuple(Hole(Window(row, 0, 1, 1), "scene.tif", "broken") for row in range(1000))
    text = text_of(report_page(show(make_record(LEGEND, holes=holes, warnings=("mind the gap",)))))
    assert text.count("Unreadable") == 39 and "and 961 more" in text and "mind the gap" in text


def test_areas_are_those_of_the_counts() -> None:
    rows = [" ".join("".join(row.itertext()) for row in tr) for tr in parse(report_page(show())).iter("tr")]
    assert rows[1].split() == ["water", "&", "ice", "75.0", "%", "0.12", "1,200"]
    assert rows[3].startswith("never seen") and "0.0 %" in rows[3]


@pytest.mark.parametrize(
    ("card", "said", "caveat"),
    [
        ({"training": UNTRAINED}, "random weights", "shows nothing"),
        ({"name": "spectral-rgb"}, "built-in colour rules", "not fitted to this place"),
        ({"training": "on cities"}, "trained model", "may never have seen"),
    ],
)
def test_it_says_what_made_the_map(card: dict[str, str], said: str, caveat: str) -> None:
    made = make_card(64, 0, 0, legend=LEGEND, **card).model_dump(mode="json")
    record = make_record(LEGEND, given=given(card=made))
    assert record.standing == said
    text = text_of(report_page(show(record)))
    assert f"{said} extrapolating" in text and caveat in text


def test_the_bottleneck_is_named() -> None:
    timing = Timing(20.0, 18.0, {"start": 1.0, "forward": 4.0, "wait": 12.0, "other": 1.0}, {}, 0.2)
    text = text_of(report_page(show(make_record(LEGEND, timing=timing))))
    assert "The bottleneck was waiting for pixels: 67%." in text


def test_a_map_without_a_valid_pixel_has_a_page(tmp_path: Path) -> None:
    nothing = np.zeros((3, 4), np.uint8)
    empty = show(classes=nothing, confidence=nothing, valid=nothing > 0, counts={1: 0})
    write_report(tmp_path / "report.html", empty)
    assert "None of the pixels shown" in text_of((tmp_path / "report.html").read_text(encoding="utf-8"))
