"""Presets of the spectral rules: three sensors, one tree of questions."""

from __future__ import annotations

from citycover.classes.legend import read_legend
from citycover.model.card import BandGroup, Dtype, ModelCard, WindowRule
from citycover_models.catalogue.preset import Preset
from citycover_models.nets.spectral import RADIUS, build_rgb, build_rgbn, build_s2

_RED = ("red", "R", "B04", "B4")

_GREEN = ("green", "G", "B03", "B3")

_BLUE = ("blue", "B", "B02", "B2")

_NIR = ("nir", "N", "NIR", "B08", "B8A", "B8")

_INDICES = (
    "Rouse et al. 1974, NASA SP-351 (NDVI)",
    "Tucker 1979, doi:10.1016/0034-4257(79)90013-0 (NDVI)",
    "McFeeters 1996, doi:10.1080/01431169608948714 (NDWI)",
    "Mathieu et al. 1998, doi:10.1016/S0034-4257(98)00030-3 (brightness, saturation)",
)

_EXCESS_GREEN = "Woebbecke et al. 1995, doi:10.13031/2013.27838 (excess green)"

_UNTRAINED = "no training: published spectral indices, thresholds set by eye; any GSD"


def _card(
    name: str,
    description: str,
    bands: tuple[tuple[str, ...], ...],
    dtypes: tuple[Dtype, ...],
    fill: tuple[float, ...],
    **more: object,
) -> ModelCard:
    group = BandGroup(bands=bands, dtypes=dtypes, value_range=(0.0, 255.0), fill=fill)
    if dtypes != ("uint8",):
        changes = {"value_range": (0.0, 20000.0), "unit": "reflectance", "unit_scale": 0.0001}
        group = group.model_copy(update=changes)
    fields: dict[str, object] = {
        "name": name,
        "licence": "Apache-2.0",
        "description": description,
        "groups": (group,),
        "window": WindowRule(size=1024),
        "trim": RADIUS,
        "feather": 8,
        "legend": read_legend("landcover5"),
        "receptive_field": 2 * RADIUS + 1,
        "precision": "fp32",
        "training": _UNTRAINED,
        "sources": _INDICES,
    }
    return ModelCard.model_validate({**fields, **more})


def _card_rgbn() -> ModelCard:
    """Card of `spectral-rgbn`."""
    return _card(
        "spectral-rgbn",
        "Water, two densities of vegetation, bare and built-up from NDVI, NDWI and colour of 8-bit RGB + "
        "near infrared. Bare and built-up differ by colour and roughness only: red roofs count as bare, "
        "grey soil and shores as built-up; deep shadow may count as water.",
        (_RED, _GREEN, _BLUE, _NIR),
        ("uint8",),
        (100.0, 105.0, 90.0, 130.0),
    )


def _card_s2() -> ModelCard:
    """Card of `spectral-s2`."""
    return _card(
        "spectral-s2",
        "Water, two densities of vegetation, bare and built-up from NDVI, NDWI and colour of Sentinel-2 "
        "bands B04, B03, B02 and B08 or B8A. Bare and built-up differ by colour and roughness only; clouds "
        "and snow count as bare or built-up: mask them first.",
        (("B04", "red", "R", "B4"), ("B03", "green", "G", "B3"), ("B02", "blue", "B", "B2"),
         ("B08", "B8A", "nir", "N", "NIR", "B8")),
        ("uint16", "int16", "float32"),
        (1600.0, 1500.0, 1400.0, 2900.0),
        offset_tag="digital numbers as delivered, reflectance x 10000, with the +1000 of processing baseline "
        "04.00 or without it: nothing is subtracted, and the thresholds stand where both are mapped sanely; "
        "with the offset, thin vegetation between NDVI 0.25 and 0.4 counts as bare or built-up",
    )  # fmt: skip


def _card_rgb() -> ModelCard:
    """Card of `spectral-rgb`."""
    return _card(
        "spectral-rgb",
        "Water, two densities of vegetation, bare and built-up from excess green, colour and brightness of "
        "8-bit RGB. Weak without near infrared: only dark, still water is found and deep shadow is taken for "
        "it; leafless trees count as bare, red roofs as bare, grey soil as built-up.",
        (_RED, _GREEN, _BLUE),
        ("uint8",),
        (100.0, 105.0, 90.0),
        sources=(_EXCESS_GREEN, _INDICES[3]),
    )


_PAPER = "Published spectral indices: NDVI, NDWI, excess green, soil brightness and saturation"

_LICENCE = "formulas from the literature; code and files of this project, Apache-2.0"

PRESETS = (
    Preset("spectral-rgbn", "spectral", build_rgbn, _card_rgbn, _PAPER, _LICENCE, 0),
    Preset("spectral-s2", "spectral", build_s2, _card_s2, _PAPER, _LICENCE, 0),
    Preset("spectral-rgb", "spectral", build_rgb, _card_rgb, _PAPER, _LICENCE, 0),
)
