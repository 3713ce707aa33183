"""When a scene was taken, as its file says: a date only where it can be one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta

_TAGS_OF_TIME = ("ACQUISITIONDATETIME", "NITF_IDATIM", "TIFFTAG_DATETIME")

_DATE = re.compile(
    r"(?<!\d)((?:19|20)\d{2})([-_]?)(0[1-9]|1[0-2])\2(0[1-9]|[12]\d|3[01])"
    r"(?:[T_]?([01]\d|2[0-3])[-_:]?([0-5]\d)[-_:]?([0-5]\d))?(?!\d)"
)
"""Year, month and day with the same sign between them: `1920_0230` is the place of a tile."""

_LANDSAT_DATE = re.compile(r"(?:^|_)L[COTEM]\d{7,8}((?:19|20)\d{2})(\d{3})(?=[A-Z]{3})")


def acquisition_time(name: str, tags: Mapping[str, str]) -> str | None:
    """When it was taken, ISO 8601; None where nothing says so.

    The file's name knows better than TIFFTAG_DATETIME, which is often the time of writing. Days that do not
    exist, and days that have not come yet, are no dates.

    >>> acquisition_time("T29UNU_20221005T115411_B02.jp2", {}), acquisition_time("tile_2048_1024.tif", {})
    ('2022-10-05T11:54:11Z', None)
    """
    if landsat := _LANDSAT_DATE.search(name):
        return _day_of_year(int(landsat[1]), int(landsat[2]))
    texts = [name, *(tags.get(tag, "").replace(":", "-", 2) for tag in _TAGS_OF_TIME)]
    return next((found for text in texts for found in _dates(text)), None)


def day_of(time: str | None) -> str:
    """The day in UTC of a time as the functions here give it; empty where it is not known.

    >>> day_of("2022-10-05T11:54:11Z"), day_of(None)
    ('2022-10-05', '')
    """
    return (time or "")[:10]


def said_time(text: object) -> str | None:
    """A time that metadata give, in UTC, so that two of them compare as text; None where it is none.

    >>> said_time("2024-05-31T01:30:00+02:00"), said_time("2024-05-31"), said_time("last May")
    ('2024-05-30T23:30:00Z', '2024-05-31', None)
    """
    try:
        found = datetime.fromisoformat(str(text))
        if len(str(text)) <= len("2024-05-31"):
            return found.date().isoformat()
        at = found.astimezone(UTC) if found.tzinfo else found
    except (ValueError, OverflowError):
        return None
    return at.replace(tzinfo=None).isoformat(timespec="milliseconds" if at.microsecond else "seconds") + "Z"


def _day_of_year(year: int, number: int) -> str | None:
    if number < 1:
        return None
    day = date(year, 1, 1) + timedelta(days=number - 1)
    return day.isoformat() if day.year == year and _has_come(day) else None


def _dates(text: str) -> Iterator[str]:
    for found in _DATE.finditer(text.replace(" ", "T")):
        try:
            day = date(*map(int, found.group(1, 3, 4)))
        except ValueError:
            continue
        clock = found.group(5, 6, 7)
        if _has_come(day):
            yield f"{day.isoformat()}T{':'.join(clock)}Z" if clock[0] else day.isoformat()


def _has_come(day: date) -> bool:
    return day <= datetime.now(UTC).date() + timedelta(days=1)
