"""What run.json says is what was known, also to later and earlier versions."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import make_legend, make_record

from citycover.engine.agreement import Seams
from citycover.errors import ConfigError
from citycover.geometry.window import Window
from citycover.product.record import FORMAT, RunRecord, read_record
from citycover.read.reader import Hole

RECORD = make_record(make_legend())

LATER = ("format", "command", "started", "finished", "host", "warnings", "attempts", "resumed")
"""Keys that the first run.json did not have."""

sides = st.integers(1, 10**6)
windows = st.builds(Window, st.integers(0, 10**6), st.integers(0, 10**6), sides, sides)
shares = st.floats(0, 1)
times = st.datetimes(timezones=st.just(UTC)) | st.none()
records = st.builds(
    replace,
    st.just(RECORD),
    timing=st.builds(replace, st.just(RECORD.timing), wall_s=st.floats(0), started=times, finished=times),
    holes=st.lists(st.builds(Hole, windows, st.text(), st.text()), max_size=3).map(tuple),
    shares=st.dictionaries(st.text(), shares, max_size=3),
    seams=st.none() | st.builds(Seams, shares | st.none(), shares | st.none(), st.integers(0)),
    warnings=st.lists(st.text(), max_size=3).map(tuple),
    attempts=st.integers(1, 9),
)


@given(records)
def test_a_record_that_was_written_is_read_back(record: RunRecord) -> None:
    assert RunRecord.from_json(record.to_json()) == record


def test_figures_lie_side_by_side_and_times_are_utc() -> None:
    east = timezone(timedelta(hours=2))
    timing = replace(RECORD.timing, started=datetime(2026, 5, 1, 1, 30, tzinfo=east))
    facts = json.loads(replace(RECORD, timing=timing, attempts=3).to_json())
    assert facts["format"] == FORMAT
    assert facts["started"] == "2026-04-30T23:30:00Z" and facts["finished"] is None
    assert (facts["device"], facts["wall_s"], facts["windows"]) == ("cpu", 2.0, {"run": 3, "skipped": 0})
    assert (facts["attempts"], facts["resumed"]) == (3, True)


def test_a_record_from_before_the_versions_still_reads() -> None:
    facts = {name: value for name, value in RECORD.facts().items() if name not in LATER}
    record = RunRecord.from_json(json.dumps(facts))
    assert record == RECORD and not record.resumed
    assert record.legend == make_legend()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": FORMAT + 1}, rf"format {FORMAT + 1}, .* reads up to {FORMAT}; install"),
        ({"card": {}}, "lacks legend; map again"),
        ({"card": {"legend": {"name": "x"}}}, "no usable .*; map again"),
        ({"wall_s": "long"}, "no usable wall_s; map again"),
        ({"holes": [{"row": 0}]}, "lacks col; map again"),
        ({"seams": 3}, "no record of a run"),
        ({"format": None}, "no record of a run"),
    ],
)
def test_what_is_no_record_is_refused_with_what_is_wrong(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps(RECORD.facts() | change))
    with pytest.raises(ConfigError, match=rf"run\.json cannot be used: .*{said}"):
        read_record(path)


@pytest.mark.parametrize("content", [b"", b"[]", b"3", b"{", b"\xff\xfe"])
def test_what_is_no_json_object_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"run\.json cannot be"):
        read_record(tmp_path / "run.json")


def test_what_is_heavy_waits_until_the_cheap_has_passed() -> None:
    script = (
        "import sys; import citycover.run.map, citycover.product.open;"
        "found = {'torch', 'xarray', 'distributed'} & set(sys.modules); assert not found, found"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
