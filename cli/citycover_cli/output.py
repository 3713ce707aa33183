"""How verbs print: results to stdout, everything else to stderr; nothing that a terminal would obey."""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, TextIO

_UNPRINTABLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Categories of Unicode: control, format (text that runs backwards), half of a pair, line breaks."""


class StdoutError(Exception):
    """What was to be printed did not go out."""


def printable(text: str) -> str:
    r"""Text whose control characters are written out; what is JSON stays JSON.

    Names of files, bands and classes come from anywhere: an escape sequence in one must not reach a terminal.

    >>> printable("red\x1b[2J")
    'red\\u001b[2J'
    """
    return "".join(
        c if c == "\n" or unicodedata.category(c) not in _UNPRINTABLE else _written_out(c) for c in text
    )


def _written_out(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def is_first() -> bool:
    """Whether this process talks: of those of torchrun, the first one does."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    """Print a result, to stdout.

    Raises:
        StdoutError: stdout is full, closed, or has no reader any more.
    """
    try:
        _write(sys.stdout, text)
    except (OSError, ValueError) as error:
        drop_stdout()
        raise StdoutError from error


def settle_stdout() -> None:
    """Let out what others printed.

    Raises:
        StdoutError: as `say`.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError) as error:
        drop_stdout()
        raise StdoutError from error


def drop_stdout() -> None:
    """Send the rest nowhere: what is buffered would fail once more when Python ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


_lines_are_json = False
"""Whether stderr is for machines."""


def note_as_json(on: bool) -> None:
    """From now on what is no result is one JSON object a line, or plain text again."""
    global _lines_are_json  # noqa: PLW0603 - stderr belongs to the process
    _lines_are_json = on


def note(text: str, level: str = "info") -> None:
    """Print what is no result, to stderr; where it cannot be heard, the run goes on all the same."""
    try:
        _write(
            sys.stderr,
            json_line(text.removeprefix("citycover: ").removeprefix("error: "), level)
            if _lines_are_json
            else text,
        )
    except (OSError, ValueError):
        return


def json_line(event: str, level: str, **facts: Any) -> str:
    """An event as one line of JSON, with the time (UTC)."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return json.dumps({"time": now, "level": level, "event": event, **facts}, default=str)


def _write(stream: TextIO | None, text: str) -> None:
    if stream is None:  # it was closed when Python began
        raise ValueError("closed")
    encoding = stream.encoding or "utf-8"
    stream.write(printable(text).encode(encoding, "backslashreplace").decode(encoding) + "\n")
    stream.flush()


def print_json(data: Any) -> None:
    """Print plain values for machines."""
    from citycover.files.plain import to_json

    say(to_json(data))


def print_table(title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Print names and values in two columns; a value may have lines."""
    width = max(len(name) for name, _ in rows)
    lines = [title]
    for name, value in rows:
        first, *more = value.split("\n")
        lines.append(f"  {name:<{width}}  {first}")
        lines += [f"  {'':<{width}}  {line}" for line in more]
    say("\n".join(lines))


def print_columns(head: tuple[str, ...], rows: Sequence[tuple[str, ...]], texts: int = 1) -> None:
    """Print rows under a head; the first columns, `texts` of them, are text, the others numbers."""
    widths = [max(len(row[k]) for row in [head, *rows]) for k in range(len(head))]
    for row in [head, *rows]:
        cells = [f"{t:<{w}}" for t, w in zip(row[:texts], widths[:texts], strict=True)]
        cells += [f"{t:>{w}}" for t, w in zip(row[texts:], widths[texts:], strict=True)]
        say("  " + "  ".join(cells))


def holes_of(count: int) -> str:
    """How many holes there are, for people.

    >>> holes_of(1)
    '1 unreadable part is nodata'
    """
    return f"{count} unreadable part{' is' if count == 1 else 's are'} nodata"


def mebibytes(count: float) -> str:
    """Bytes for people.

    >>> mebibytes(5 * 2**30)
    '5.0 GiB'
    """
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def duration(seconds: float) -> str:
    """Seconds for people.

    >>> duration(3725)
    '1 h 02 min'
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"
