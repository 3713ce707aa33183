"""What a run left, and how a notebook shows it."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from affine import Affine
from odc.geo.geobox import GeoBox
from PIL import Image

from citycover.errors import ConfigError
from citycover.files.plain import parse_json
from citycover.files.remote import Place, place_of
from citycover.geometry.areas import mean_area
from citycover.plan.layers import CLASSES
from citycover.product.folder import refuse_cut
from citycover.product.names import SIGN
from citycover.product.record import RunRecord, read_record

_PICTURE_SIDE = 900


@dataclass(frozen=True, slots=True)
class Product:
    """A finished product. As the last value of a notebook's cell it shows its picture and its areas."""

    folder: Place
    files: tuple[Place, ...]
    run: RunRecord
    """What run.json says."""

    @classmethod
    def read(cls, folder: str | Place) -> Product:
        """A product that lies there.

        Raises:
            ConfigError: there is none, or it is not whole.
        """
        folder = place_of(folder)
        assets = _item(folder)["assets"].values()
        names = {str(asset["href"]).removeprefix("./") for asset in assets}
        if missing := sorted(name for name in names if not (folder / name).exists()):
            raise ConfigError(
                f"{folder} lacks {', '.join(missing)}, which its {SIGN} lists; give the folder as "
                "`citycover map` wrote it, or map again"
            )
        refuse_cut(folder, sorted(name for name in names if name.endswith(".tif")))
        files = (*(folder / name for name in sorted(names)), folder / SIGN)
        return cls(folder, files, read_record(folder / "run.json"))

    def areas(self) -> dict[str, float]:
        """Square metres of each class that occurs, by name: its pixels times the mean area of a pixel.

        `zonal_areas` reckons row by row, which differs where pixels of one map differ in size.
        """
        item = _item(self.folder)
        pixel = mean_area(_grid(item["properties"]))
        classes = item["assets"][Path(CLASSES.file).stem]["classification:classes"]
        counts = {c["title"]: c["count"] for c in classes if c.get("count")}
        return {name: counts[name] * pixel for name in self.run.legend.names if name in counts}

    def _repr_html_(self) -> str:
        """Picture and areas; every text is escaped."""
        given = self.run.given
        head = f"<strong>{escape(self.folder.name)}</strong>: {escape(given.model.name)}, "
        return (
            f"<div>{head}{escape(self.run.standing)}, {escape(self.run.evidence)}<br>{self._picture()}"
            f'<table><thead><tr><th style="text-align:left">class</th><th>ha</th><th>%</th></tr></thead>'
            f"<tbody>{''.join(self._rows())}</tbody></table></div>"
        )

    def _picture(self) -> str:
        preview = self.folder / "preview.png"
        if not preview.is_file():  # `refine` draws none
            return ""
        with Image.open(io.BytesIO(preview.read_bytes())) as picture:
            small = picture.convert("RGB")
        small.thumbnail((_PICTURE_SIDE, _PICTURE_SIDE))
        content = io.BytesIO()
        small.save(content, "WEBP", quality=85)
        data = base64.b64encode(content.getvalue()).decode("ascii")
        return f'<img alt="image beside map" src="data:image/webp;base64,{data}"><br>'

    def _rows(self) -> Iterator[str]:
        colours = {entry.name: entry.color for entry in self.run.legend.classes}
        areas = self.areas()
        for name, area in areas.items():
            dot = f'<span style="color:{colours[name]}">&#9632;</span>'
            share = area / sum(areas.values())
            yield (
                f'<tr><td style="text-align:left">{dot} {escape(name)}</td>'
                f"<td>{area / 1e4:,.2f}</td><td>{share:.1%}</td></tr>"
            )


def _grid(properties: Mapping[str, Any]) -> GeoBox:
    """The grid that an item names."""
    crs = properties.get("proj:code") or properties.get("proj:wkt2")
    return GeoBox(tuple(properties["proj:shape"]), Affine(*properties["proj:transform"][:6]), crs)


def _item(folder: Place) -> dict[str, Any]:
    """The item of a product.

    Raises:
        ConfigError: there is none that can be read.
    """
    try:
        item: dict[str, Any] = parse_json((folder / SIGN).read_text(encoding="utf-8"))
        if not isinstance(item["assets"][Path(CLASSES.file).stem], dict):
            raise TypeError(CLASSES.name)
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(
            f"{folder} holds no {SIGN} that lists a product; give a folder that `citycover map` wrote"
        ) from None
    return item
