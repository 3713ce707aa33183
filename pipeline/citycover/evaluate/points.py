"""A sample as a file."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from citycover.errors import ConfigError
from citycover.evaluate.sample import PointSample
from citycover.files.output import write_output


def check_ending(path: Path) -> None:
    """Raise ConfigError unless points can be written into such a file."""
    if path.suffix.lower() not in _WRITERS:
        raise ConfigError(f"points are written as {' or '.join(_WRITERS)}; {path} ends in {path.suffix!r}")


def write_sample(sample: PointSample, path: Path) -> None:
    """Write points as GeoJSON (in longitude and latitude) or CSV, by the file's ending.

    Raises:
        ConfigError: another ending.
        MachineError: it cannot be written.
    """
    check_ending(path)
    write_output(path, _WRITERS[path.suffix.lower()](sample.rows()))


def _geojson(rows: list[dict[str, Any]]) -> str:
    features = (
        {
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": [row["lon"], row["lat"]]},
            "properties": row,
        }
        for row in rows
    )
    lines = ",\n".join(json.dumps(feature) for feature in features)  # one line a point: readable in a diff
    return f'{{"type": "FeatureCollection", "features": [\n{lines}\n]}}\n'


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


_WRITERS = {".geojson": _geojson, ".json": _geojson, ".csv": _csv}
