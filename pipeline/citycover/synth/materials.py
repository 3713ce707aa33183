"""What the city is made of: the spectrum, texture and class of each material."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from citycover.synth.noise import F32

S2_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
"""Order of the reflectances of a spectrum."""

RGBN = (3, 2, 1, 7)
"""Red, green, blue and near infrared as positions in `S2_BANDS`."""


class Cover(IntEnum):
    """Classes of the truth; `configs/legends/city.toml` names and colours them."""

    WATER = 1
    TREE = 2
    GRASS = 3
    SOIL = 4
    BUILDING = 5
    PAVED = 6


class Mat(IntEnum):
    """Materials, in the order of the spectra below."""

    WATER = 0
    TURBID = 1
    TREE = 2
    CONIFER = 3
    LAWN = 4
    DRY_GRASS = 5
    CROP_GREEN = 6
    CROP_RIPE = 7
    SOIL_LIGHT = 8
    SOIL_DARK = 9
    GRAVEL = 10
    ROOF_RED = 11
    ROOF_GREY = 12
    ROOF_DARK = 13
    ROOF_WHITE = 14
    ROOF_BLUE = 15
    ROOF_PLANTED = 16
    ROOF_BROWN = 17
    ASPHALT = 18
    ASPHALT_OLD = 19
    CONCRETE = 20
    PAVING = 21
    TURF = 22
    CAR_LIGHT = 23
    CAR_DARK = 24
    CAR_RED = 25
    MARKING = 26


@dataclass(frozen=True, slots=True)
class Material:
    """One material."""

    cover: Cover
    spectrum: tuple[float, ...]
    """Reflectance in each of `S2_BANDS`."""
    texture: tuple[float, float, float]
    """Relative brightness of patches about 2, 9 and 45 m wide (amplitude)."""


_W, _T, _G, _S, _B, _P = Cover

MATERIALS: dict[Mat, Material] = {
    Mat.WATER: Material(
        _W,
        (0.050, 0.054, 0.064, 0.048, 0.044, 0.040, 0.038, 0.034, 0.031, 0.028, 0.016, 0.011),
        (0.12, 0.10, 0.15),
    ),
    Mat.TURBID: Material(
        _W,
        (0.060, 0.068, 0.098, 0.086, 0.088, 0.074, 0.070, 0.066, 0.060, 0.052, 0.026, 0.018),
        (0.10, 0.10, 0.15),
    ),
    Mat.TREE: Material(
        _T,
        (0.022, 0.028, 0.056, 0.036, 0.090, 0.240, 0.310, 0.340, 0.360, 0.370, 0.170, 0.080),
        (0.34, 0.10, 0.10),
    ),
    Mat.CONIFER: Material(
        _T,
        (0.020, 0.024, 0.042, 0.030, 0.062, 0.160, 0.210, 0.240, 0.250, 0.250, 0.110, 0.050),
        (0.36, 0.10, 0.08),
    ),
    Mat.LAWN: Material(
        _G,
        (0.035, 0.044, 0.088, 0.066, 0.130, 0.260, 0.310, 0.340, 0.360, 0.370, 0.240, 0.130),
        (0.08, 0.13, 0.18),
    ),
    Mat.DRY_GRASS: Material(
        _G,
        (0.058, 0.074, 0.122, 0.134, 0.180, 0.240, 0.260, 0.285, 0.300, 0.310, 0.340, 0.230),
        (0.10, 0.14, 0.18),
    ),
    Mat.CROP_GREEN: Material(
        _G,
        (0.030, 0.038, 0.080, 0.050, 0.120, 0.300, 0.390, 0.430, 0.450, 0.450, 0.220, 0.110),
        (0.07, 0.08, 0.16),
    ),
    Mat.CROP_RIPE: Material(
        _G,
        (0.070, 0.092, 0.150, 0.182, 0.220, 0.260, 0.285, 0.310, 0.330, 0.330, 0.380, 0.280),
        (0.07, 0.08, 0.14),
    ),
    Mat.SOIL_LIGHT: Material(
        _S,
        (0.080, 0.104, 0.150, 0.196, 0.220, 0.240, 0.255, 0.270, 0.280, 0.280, 0.370, 0.330),
        (0.10, 0.13, 0.16),
    ),
    Mat.SOIL_DARK: Material(
        _S,
        (0.050, 0.062, 0.088, 0.114, 0.130, 0.146, 0.158, 0.172, 0.180, 0.180, 0.250, 0.220),
        (0.10, 0.12, 0.18),
    ),
    Mat.GRAVEL: Material(
        _S,
        (0.120, 0.142, 0.176, 0.202, 0.212, 0.222, 0.228, 0.236, 0.240, 0.240, 0.290, 0.270),
        (0.11, 0.12, 0.12),
    ),
    Mat.ROOF_RED: Material(
        _B,
        (0.062, 0.074, 0.100, 0.182, 0.220, 0.240, 0.250, 0.262, 0.270, 0.270, 0.330, 0.310),
        (0.08, 0.04, 0.00),
    ),
    Mat.ROOF_GREY: Material(
        _B,
        (0.120, 0.132, 0.144, 0.150, 0.155, 0.160, 0.165, 0.172, 0.180, 0.180, 0.200, 0.190),
        (0.06, 0.06, 0.00),
    ),
    Mat.ROOF_DARK: Material(
        _B,
        (0.054, 0.060, 0.064, 0.063, 0.063, 0.063, 0.064, 0.062, 0.064, 0.064, 0.080, 0.080),
        (0.08, 0.07, 0.00),
    ),
    Mat.ROOF_WHITE: Material(
        _B,
        (0.310, 0.345, 0.362, 0.365, 0.365, 0.365, 0.365, 0.365, 0.365, 0.360, 0.330, 0.300),
        (0.04, 0.05, 0.00),
    ),
    Mat.ROOF_BLUE: Material(
        _B,
        (0.120, 0.142, 0.128, 0.092, 0.088, 0.084, 0.084, 0.086, 0.090, 0.090, 0.130, 0.130),
        (0.05, 0.05, 0.00),
    ),
    Mat.ROOF_PLANTED: Material(
        _B,
        (0.048, 0.060, 0.098, 0.096, 0.140, 0.210, 0.240, 0.260, 0.270, 0.270, 0.270, 0.180),
        (0.12, 0.12, 0.00),
    ),
    Mat.ROOF_BROWN: Material(
        _B,
        (0.062, 0.074, 0.092, 0.118, 0.130, 0.140, 0.145, 0.152, 0.160, 0.160, 0.220, 0.210),
        (0.08, 0.05, 0.00),
    ),
    Mat.ASPHALT: Material(
        _P,
        (0.070, 0.080, 0.088, 0.092, 0.096, 0.100, 0.104, 0.108, 0.110, 0.110, 0.140, 0.130),
        (0.06, 0.06, 0.08),
    ),
    Mat.ASPHALT_OLD: Material(
        _P,
        (0.104, 0.118, 0.134, 0.142, 0.146, 0.150, 0.154, 0.160, 0.165, 0.165, 0.200, 0.190),
        (0.06, 0.07, 0.08),
    ),
    Mat.CONCRETE: Material(
        _P,
        (0.180, 0.204, 0.230, 0.246, 0.256, 0.264, 0.270, 0.278, 0.285, 0.285, 0.310, 0.290),
        (0.06, 0.07, 0.06),
    ),
    Mat.PAVING: Material(
        _P,
        (0.120, 0.138, 0.162, 0.180, 0.188, 0.196, 0.202, 0.210, 0.215, 0.215, 0.250, 0.240),
        (0.09, 0.08, 0.06),
    ),
    Mat.TURF: Material(
        _P,
        (0.034, 0.046, 0.092, 0.056, 0.070, 0.100, 0.140, 0.180, 0.200, 0.200, 0.180, 0.140),
        (0.04, 0.03, 0.03),
    ),
    Mat.CAR_LIGHT: Material(
        _P,
        (0.300, 0.330, 0.340, 0.345, 0.345, 0.345, 0.345, 0.345, 0.345, 0.345, 0.300, 0.280),
        (0.10, 0.00, 0.00),
    ),
    Mat.CAR_DARK: Material(
        _P,
        (0.045, 0.048, 0.050, 0.050, 0.050, 0.050, 0.050, 0.052, 0.055, 0.055, 0.060, 0.060),
        (0.10, 0.00, 0.00),
    ),
    Mat.CAR_RED: Material(
        _P,
        (0.040, 0.046, 0.050, 0.210, 0.220, 0.230, 0.240, 0.250, 0.250, 0.250, 0.240, 0.220),
        (0.10, 0.00, 0.00),
    ),
    Mat.MARKING: Material(
        _P,
        (0.270, 0.300, 0.315, 0.320, 0.320, 0.320, 0.320, 0.320, 0.320, 0.320, 0.300, 0.290),
        (0.05, 0.00, 0.05),
    ),
}

SPECTRA: F32 = np.array([MATERIALS[m].spectrum for m in Mat], dtype=np.float32)
"""(material, S2 band) reflectance."""

TEXTURE: F32 = np.array([MATERIALS[m].texture for m in Mat], dtype=np.float32)
"""(material, scale) amplitude."""

COVER = np.array([MATERIALS[m].cover for m in Mat], dtype=np.uint8)
"""(material,) class of the truth."""
