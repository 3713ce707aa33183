"""Files that are almost right: a seed with a few edits, as hypothesis draws them, so that findings shrink."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

_TOKENS = (
    b"", b"\x00", b"\xff", b"\xef\xbb\xbf", b"\x1b[2J", b"\r\n", b'"', b"'", b"[", b"]", b"{", b"}", b"=",
    b":", b",", b"-1", b"0", b"1e308", b"1e99999", b"NaN", b"Infinity", b"-0.0", b"1/0", b"9" * 400,
    b"2147483648",
    b"4294967296", b"18446744073709551616", b"null", b"true", b"../../../etc/passwd", b"/dev/zero",
    b"/vsicurl/http://127.0.0.1:9/x", b"\xf0\x9f\x8c\x8d", b"\xed\xa0\x80", b"[" * 2000,
    b"<!ENTITY a '&a;&a;'>",
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**40, 0.5, -0.0, 1e308, float("nan"), float("inf"),
    "",
    "x", "\ud800", "\x1b[2J", "a\nb", "1/0", "1e99999999", "9" * 5000, [], {}, [[]], [1, "a", None],
    {"a": {}}, [0] * 3000, "../../etc/passwd", "/dev/zero",
)  # fmt: skip


@st.composite
def edited_bytes(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds with one to eight edits: bytes changed, cut, doubled, or replaced by odd tokens."""
    content = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 8))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        length = draw(st.integers(0, min(16, len(content) - at))) if content else 0
        match draw(st.integers(0, 5)):
            case 0:
                content[at : at + length] = draw(st.sampled_from(_TOKENS))
            case 1:
                content[at : at + max(1, length)] = draw(st.binary(min_size=1, max_size=4))
            case 2:
                del content[at : at + length]
            case 3:
                content[at:at] = content[at : at + length] * draw(st.integers(1, 3))
            case 4 if content:
                content[at] ^= 1 << draw(st.integers(0, 7))
            case _:
                del content[at + 1 :]
    return bytes(content)


@st.composite
def edited_values(draw: st.DrawFn, seeds: Sequence[Any]) -> Any:
    """One of the seeds, plain values, with one to four of its values replaced, removed, renamed or nested."""
    value = json.loads(json.dumps(draw(st.sampled_from(seeds))))
    for _ in range(draw(st.integers(1, 4))):
        holder = {"root": value}
        place, key = holder, "root"
        while place[key] and isinstance(place[key], dict | list) and draw(st.integers(0, 4)):
            place = place[key]  # type: ignore[assignment]
            keys = list(place) if isinstance(place, dict) else range(len(place))
            key = draw(st.sampled_from(keys))
        match draw(st.integers(0, 4)):
            case 0 if place is not holder:
                del place[key]
            case 1 if isinstance(place, dict) and place is not holder:
                place[draw(st.sampled_from(("", "x", "\x00", "type", "id")))] = place.pop(key)
            case 2:
                place[key] = [place[key], copy.deepcopy(draw(st.sampled_from(_VALUES)))]
            case _:
                place[key] = copy.deepcopy(draw(st.sampled_from(_VALUES)))
        value = holder["root"]
    return value
