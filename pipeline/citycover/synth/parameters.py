"""Every number of the practice city in one place. They are frozen: figures are measured on this city.

Changing any of them, or anything else that changes a pixel, is a new `SYNTH_VERSION`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from citycover.synth.materials import Mat

SYNTH_VERSION = "1"


class Kind(IntEnum):
    """What a district is."""

    CENTRE = 0
    ROWS = 1
    HOUSES = 2
    ESTATE = 3
    INDUSTRY = 4
    PARK = 5
    FIELDS = 6
    FOREST = 7


@dataclass(frozen=True, slots=True)
class DistrictRule:
    """How districts of one kind are built; lengths in metres, shares and chances in 0..1."""

    block: tuple[float, float]
    """Distance of streets across and along a block, before variation."""
    street: float
    """Half width of a local street; collectors are wider by half."""
    arterial: float
    """Half width of the roads on the district's border (the mean of both sides counts)."""
    frontage: float
    """Width of a lot along the street."""
    setback: tuple[float, float]
    """Least distance from street to building, and its random part."""
    depth: tuple[float, float]
    """Depth of a building, and its random part."""
    width: tuple[float, float]
    """Share of the frontage that a building takes, and its random part."""
    height: tuple[float, float]
    """Least height of a building, and its random part."""
    gable: float
    """Chance of a pitched roof."""
    empty: float
    """Chance that a lot has no building."""
    uses: tuple[float, float, float, float]
    """Cumulative chance that a whole block is: green, parking, construction site, sports ground."""
    ground: tuple[Mat, Mat, Mat]
    """What open ground is made of: mostly, sometimes, rarely."""
    trees: float
    """Chance of a tree in 64 square metres of open ground."""
    cars: float
    """Chance that a place at the kerb is taken."""


RULES: dict[Kind, DistrictRule] = {
    Kind.CENTRE: DistrictRule(
        (70, 120), 4.5, 9.0, 17, (0, 0), (12, 4), (1.0, 0.0), (12, 14), 0.55, 0.10,
        (0.07, 0.13, 0.17, 0.17), (Mat.PAVING, Mat.LAWN, Mat.ASPHALT_OLD), 0.22, 0.60,
    ),
    Kind.ROWS: DistrictRule(
        (62, 130), 3.8, 7.5, 9, (3, 3), (9, 3), (0.94, 0.06), (7, 4), 0.85, 0.14,
        (0.06, 0.08, 0.11, 0.13), (Mat.LAWN, Mat.PAVING, Mat.DRY_GRASS), 0.34, 0.55,
    ),
    Kind.HOUSES: DistrictRule(
        (66, 150), 3.4, 7.0, 19, (4, 5), (8, 5), (0.46, 0.22), (4, 4), 0.92, 0.08,
        (0.05, 0.06, 0.10, 0.12), (Mat.LAWN, Mat.DRY_GRASS, Mat.SOIL_LIGHT), 0.38, 0.30,
    ),
    Kind.ESTATE: DistrictRule(
        (96, 170), 4.0, 8.5, 54, (9, 9), (11, 4), (0.55, 0.35), (10, 16), 0.08, 0.16,
        (0.08, 0.15, 0.20, 0.25), (Mat.LAWN, Mat.DRY_GRASS, Mat.ASPHALT_OLD), 0.26, 0.55,
    ),
    Kind.INDUSTRY: DistrictRule(
        (150, 210), 5.0, 9.0, 66, (8, 8), (26, 26), (0.55, 0.35), (6, 7), 0.10, 0.16,
        (0.04, 0.12, 0.22, 0.22), (Mat.ASPHALT_OLD, Mat.CONCRETE, Mat.GRAVEL), 0.05, 0.25,
    ),
    Kind.PARK: DistrictRule(
        (88, 120), 1.7, 6.5, 60, (0, 0), (10, 4), (0.3, 0.0), (4, 3), 0.8, 0.995,
        (0.78, 0.82, 0.82, 0.94), (Mat.LAWN, Mat.LAWN, Mat.DRY_GRASS), 0.30, 0.0,
    ),
    Kind.FIELDS: DistrictRule(
        (120, 260), 2.0, 3.6, 60, (6, 6), (14, 10), (0.3, 0.2), (5, 4), 0.9, 0.985,
        (0.03, 0.03, 0.05, 0.05), (Mat.CROP_GREEN, Mat.CROP_RIPE, Mat.SOIL_DARK), 0.0, 0.0,
    ),
    Kind.FOREST: DistrictRule(
        (190, 260), 1.6, 3.2, 60, (0, 0), (10, 0), (0.3, 0.0), (4, 0), 0.9, 1.0,
        (0.0, 0.0, 0.0, 0.0), (Mat.DRY_GRASS, Mat.DRY_GRASS, Mat.SOIL_DARK), 0.97, 0.0,
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things lie; metres."""

    district: float = 430.0
    """Spacing of districts."""
    district_jitter: float = 0.34
    town: float = 2600.0
    """Spacing of town centres; the first is within 1024 +- 230 of the origin, both ways."""
    town_radius: tuple[float, float] = (820.0, 420.0)
    """Least radius of a town and its random part."""
    river: float = 3400.0
    """Spacing of rivers; the first passes beside the first town's centre."""
    river_half_width: tuple[float, float] = (21.0, 9.0)
    """Mean half width, and how far it varies."""
    meander: tuple[tuple[float, float], ...] = ((150.0, 620.0), (38.0, 190.0), (4.0, 37.0))
    """(amplitude, wavelength) of the river's course."""
    warp: tuple[tuple[float, int], ...] = ((26.0, 460), (5.0, 150))
    """(amplitude, wavelength) by which streets are bent where a district grew without a plan."""
    tree_cell: int = 8
    """One tree at most per cell of this many metres; crowns are smaller than a cell."""


@dataclass(frozen=True, slots=True)
class Sky:
    """Light and air; they differ from seed to seed within these bounds."""

    azimuth: tuple[float, float] = (115.0, 245.0)
    """Where the sun stands, degrees clockwise from north."""
    elevation: tuple[float, float] = (40.0, 58.0)
    diffuse: tuple[float, float, float, float] = (0.150, 0.185, 0.235, 0.105)
    """Share of the light that reaches a shadow, in red, green, blue and near infrared."""
    haze: tuple[float, float, float, float] = (0.020, 0.027, 0.040, 0.008)
    """Path radiance on a clear day, as reflectance; hazy days have up to twice as much."""
    haze_patches: tuple[float, int] = (0.55, 700)
    """Relative amplitude and wavelength in metres of the haze's unevenness."""


@dataclass(frozen=True, slots=True)
class Sensor:
    """From radiance to digital numbers."""

    gsd: float = 1.0
    gain: tuple[float, float, float, float] = (2.05, 2.05, 2.05, 1.60)
    gamma: float = 1.8
    blur: float = 0.17
    """Weight of each neighbour in the three-tap point spread; below 1/4."""
    shot_noise: float = 0.011
    """Standard deviation at radiance 1; it grows with the root of the radiance."""
    read_noise: float = 0.0035
    haze: float = 1.0
    """Haze relative to the first sensor's day."""


@dataclass(frozen=True, slots=True)
class CoarseLabels:
    """How the coarse labels go wrong.

    Rows of `confusion` are the true majority class of a cell (water, tree, low vegetation, soil,
    building, paved), columns the class it is given.
    """

    offset: tuple[int, int] = (4, -3)
    """Rows and columns in metres by which the cells really lie off the grid that the file states."""
    visibility: tuple[float, ...] = (1.0, 1.15, 1.15, 0.85, 1.15, 0.75)
    """Weight of a class's area when a cell's majority is taken: what is thin or small is overlooked."""
    confusion: tuple[tuple[float, ...], ...] = (
        (0.930, 0.020, 0.025, 0.005, 0.000, 0.020),
        (0.005, 0.845, 0.130, 0.005, 0.010, 0.005),
        (0.002, 0.090, 0.830, 0.050, 0.018, 0.010),
        (0.002, 0.008, 0.200, 0.690, 0.040, 0.060),
        (0.000, 0.010, 0.030, 0.025, 0.835, 0.100),
        (0.003, 0.015, 0.050, 0.045, 0.200, 0.687),
    )
    clump: int = 3
    """Errors come in clumps of about this many cells."""
    change: tuple[int, float] = (60, 0.03)
    """Size in metres and share of the patches that were mapped before they changed."""


@dataclass(frozen=True, slots=True)
class CityParameters:
    """All of it."""

    layout: Layout = Layout()
    sky: Sky = Sky()
    sensor: Sensor = Sensor()
    second_sensor: Sensor = Sensor(
        gsd=1.25,
        gain=(2.60, 2.45, 2.15, 1.25),
        gamma=1.35,
        blur=0.22,
        shot_noise=0.016,
        read_noise=0.006,
        haze=1.5,
    )
    labels: CoarseLabels = CoarseLabels()


CITY = CityParameters()
