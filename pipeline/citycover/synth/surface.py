"""The small scale: what each square metre is made of, how high it stands, how likely a tree is there.

Painters in the order of the ground upwards: open ground, fields, whole-block uses, buildings, streets, cars,
the river, arterial roads. Each writes material, brightness and height where it applies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from citycover.geometry.window import Window
from citycover.synth.buildings import paint_buildings
from citycover.synth.canvas import Canvas
from citycover.synth.districts import Cells, Districts, Frame, bend, districts_around, river_at, voronoi
from citycover.synth.lots import Bool, Lots, free_distance, lots_of, rule_column, rule_table, uses_of
from citycover.synth.materials import Mat
from citycover.synth.noise import F32, hashed, key, unit, value_noise
from citycover.synth.parameters import Kind

_TREES, _CARS = rule_table("trees", "cars")

_GROUND = np.stack([rule_column("ground", i) for i in range(3)], axis=1).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Site:
    """Everything a painter may ask about a window."""

    seed: int
    frame: Frame
    table: Districts
    cells: Cells
    lots: Lots
    use: NDArray[np.uint8]
    patches: F32
    """(y, x) noise of about 40 m."""


def survey(seed: int, window: Window) -> Site:
    """Find districts, streets and lots of a window."""
    frame = bend(seed, window)
    table = districts_around(seed, frame)
    cells = voronoi(frame, table)
    lots = lots_of(frame, table, cells)
    patches = value_noise(key(seed, "patches"), frame.rows, frame.cols, 38)
    patches += np.float32(0.5) * value_noise(key(seed, "patches-fine"), frame.rows, frame.cols, 13)
    return Site(seed, frame, table, cells, lots, uses_of(lots), patches)


def paint_surface(seed: int, window: Window) -> tuple[Site, Canvas]:
    """Everything but the crowns of trees."""
    site = survey(seed, window)
    canvas = Canvas.blank((window.height, window.width))
    paint_open_ground(site, canvas)
    paint_fields(site, canvas)
    paint_uses(site, canvas)
    lots = site.lots
    paint_buildings(
        canvas, lots, site.use, lambda shift: free_distance(seed, site.frame, site.table, site.cells, shift)
    )
    paint_streets(site, canvas)
    paint_river(site, canvas)
    paint_arterials(site, canvas)
    return site, canvas


def paint_open_ground(site: Site, canvas: Canvas) -> None:
    """Gardens, courts, yards and meadows."""
    lots = site.lots
    draw = unit(lots.lot, 16)
    choice = (draw > 0.62).astype(np.uint8) + (draw > 0.88)
    wild = (lots.kind == Kind.PARK) | (lots.kind == Kind.FOREST)
    np.copyto(choice, (site.patches > 0.75).astype(np.uint8) * 2, where=wild)
    canvas.material[...] = _GROUND[lots.kind, choice]
    canvas.gain[...] += (unit(lots.lot, 24) - np.float32(0.5)) * np.float32(0.30)
    density = _TREES[lots.kind]
    clumped = np.clip(site.patches * np.float32(1.3) + np.float32(0.12), 0, 1)
    canvas.trees[...] = np.where(lots.kind == Kind.PARK, clumped * clumped, density)
    clearing = (lots.kind == Kind.FOREST) & (site.patches < -0.8)
    canvas.trees[clearing] = 0.1
    houses = (lots.kind == Kind.HOUSES) | (lots.kind == Kind.ROWS)
    border = (np.abs(lots.t) > lots.frontage / 2 - np.float32(0.75)) | (lots.lot_depth - lots.depth < 0.8)
    hedge = houses & border & (lots.depth > 1) & (unit(lots.lot, 8) < 0.42)
    canvas.paint(hedge, Mat.TREE, height=1.6)
    worn = houses & ~hedge & (site.patches > 0.85)
    canvas.paint(worn, Mat.SOIL_LIGHT)


def paint_fields(site: Site, canvas: Canvas) -> None:
    """Parcels with rows of crops, stubble, meadows and bare furrows; farm tracks and hedgerows between."""
    lots = site.lots
    fields = lots.kind == Kind.FIELDS
    if not fields.any():
        return
    parcel = hashed(lots.block, np.floor(lots.u * 0).astype(np.int32) + lots.far_side)
    crop = unit(parcel)
    material = np.full(crop.shape, Mat.CROP_GREEN, np.uint8)
    for limit, mat in ((0.66, Mat.CROP_RIPE), (0.50, Mat.SOIL_DARK), (0.36, Mat.SOIL_LIGHT), (0.24, Mat.LAWN),
                       (0.14, Mat.DRY_GRASS)):  # fmt: skip
        np.copyto(material, np.uint8(mat), where=crop < limit)
    rows = np.where(unit(parcel, 8) < 0.5, lots.u, lots.v)
    sown = fields & (crop >= 0.24)
    period = 3 + np.floor(unit(parcel, 16) * 3)
    furrow = np.abs(_saw(rows, period) - np.float32(0.5)) * 4 - 1  # -1..1
    tramline = sown & (_saw(rows, np.float32(22.0)) < 0.07)
    gain = 1 + (unit(parcel, 24) - np.float32(0.5)) * np.float32(0.36)
    gain += np.where(sown, furrow * np.float32(0.10), 0)
    canvas.paint(fields, material, gain=gain)
    canvas.paint(tramline & (material != Mat.SOIL_DARK), Mat.SOIL_LIGHT, gain=0.9)
    thin = sown & (crop >= 0.66) & (site.patches > 0.95)
    canvas.paint(thin, Mat.SOIL_LIGHT)
    hedgerow = (np.minimum(lots.depth, lots.end) < 3.5) & (lots.depth > -1)
    canvas.trees[fields] = np.where(
        hedgerow & (unit(lots.block, 24) < 0.5), np.float32(0.5), np.float32(0.004)
    )[fields]


def _saw(coordinate: F32, period: F32 | np.float32) -> F32:
    cycles = coordinate / period
    out: F32 = cycles - np.floor(cycles)
    return out


def paint_uses(site: Site, canvas: Canvas) -> None:
    """Blocks that are a green, a car park, a construction site or a sports ground."""
    lots = site.lots
    inside = ~lots.walk
    green = inside & (site.use == 1) & (lots.kind != Kind.PARK) & (lots.kind != Kind.FIELDS)
    canvas.paint(green, Mat.LAWN)
    canvas.trees[green] = np.clip(site.patches + np.float32(0.35), 0.03, 0.9)[green]
    paths = green & ((np.abs(lots.lot_depth - lots.depth) < 1.3) | (np.abs(lots.t) < 1.2))
    canvas.paint(paths, Mat.GRAVEL)
    canvas.trees[paths] = 0
    _paint_parking(site, canvas, inside & (site.use == 2))
    works = inside & (site.use == 3)
    canvas.paint(works, np.where(site.patches > 0.1, np.uint8(Mat.SOIL_LIGHT), np.uint8(Mat.SOIL_DARK)))
    canvas.paint(works & (site.patches < -0.75), Mat.GRAVEL)
    canvas.paint(works & (site.patches > 0.9), Mat.DRY_GRASS)
    canvas.trees[works] = 0.006
    _paint_sports(site, canvas, inside & (site.use == 4))


def _paint_parking(site: Site, canvas: Canvas, where: Bool) -> None:
    lots = site.lots
    canvas.paint(where, Mat.ASPHALT)
    canvas.trees[where] = 0.02
    row = lots.depth / np.float32(17)
    lane = (row - np.floor(row)) * 17  # 5 m stalls, 7 m aisle, 5 m stalls
    stall = where & (np.abs(lane - np.float32(8.5)) > 3.5)
    cell = np.floor(lots.t / np.float32(2.7))
    line = np.abs(lots.t / np.float32(2.7) - cell - np.float32(0.5)) > 0.44
    canvas.paint(stall & line, Mat.MARKING, gain=0.62)
    bits = hashed(lots.lot, cell.astype(np.int32), np.floor(row * 2 + np.float32(0.5)).astype(np.int32))
    mid = np.abs(np.abs(lane - np.float32(8.5)) - 6)
    car = stall & ~line & (mid < 2.2) & (unit(bits) < unit(lots.block, 24) * np.float32(0.8) + 0.1)
    canvas.paint(car, _car_colour(bits), gain=np.float32(0.75) + np.float32(0.5) * unit(bits, 24), height=1.5)


def _car_colour(bits: NDArray[np.uint32]) -> NDArray[np.uint8]:
    colours = np.array(
        [
            Mat.CAR_LIGHT,
            Mat.CAR_DARK,
            Mat.CAR_DARK,
            Mat.CAR_LIGHT,
            Mat.ROOF_GREY,
            Mat.CAR_RED,
            Mat.CAR_DARK,
            Mat.CAR_LIGHT,
        ],
        np.uint8,
    )
    colours[colours == Mat.ROOF_GREY] = Mat.CONCRETE
    colour: NDArray[np.uint8] = colours[(bits >> np.uint32(13)) & np.uint32(7)]
    return colour


def _paint_sports(site: Site, canvas: Canvas, where: Bool) -> None:
    lots = site.lots
    across = np.minimum(lots.across.low - lots.across.low_half, lots.across.high - lots.across.high_half)
    pitch = where & (across > 9) & (lots.end > 12)
    artificial = unit(lots.block, 24) < 0.5
    canvas.paint(where, Mat.LAWN)
    canvas.trees[where] = 0.12
    canvas.paint(where & (across > 5) & (lots.end > 8), Mat.ROOF_RED)
    canvas.paint(where & (across > 5) & (lots.end > 8), Mat.GRAVEL)
    canvas.paint(pitch, np.where(artificial, np.uint8(Mat.TURF), np.uint8(Mat.LAWN)))
    mown = np.where(_saw(lots.v, np.float32(12.0)) < 0.5, np.float32(1.06), np.float32(0.94))
    np.copyto(canvas.gain, mown, where=pitch)
    edge = np.minimum(np.abs(across - np.float32(10.5)), np.abs(lots.end - np.float32(13.5))) < 0.4
    canvas.paint(pitch & edge & (across > 10) & (lots.end > 13), Mat.MARKING)
    canvas.trees[where & (across > 5) & (lots.end > 8)] = 0


def paint_streets(site: Site, canvas: Canvas) -> None:
    """Carriageways, pavements, verges with trees, parked cars; paths in parks; tracks in fields and woods."""
    lots = site.lots
    built = lots.kind <= Kind.INDUSTRY
    walk, street = lots.walk, lots.street
    verge = walk & built
    grassy = (unit(lots.block, 16) < 0.45) & (lots.kind != Kind.CENTRE)
    canvas.paint(verge, np.where(grassy, np.uint8(Mat.LAWN), np.uint8(Mat.PAVING)))
    canvas.trees[walk] = np.where(built, np.float32(0.30), canvas.trees)[walk]
    asphalt = np.where(
        unit(site.table.key[site.cells.own], 8) < 0.5, np.uint8(Mat.ASPHALT), np.uint8(Mat.ASPHALT_OLD)
    )
    canvas.paint(street & built, asphalt)
    path = street & (lots.kind == Kind.PARK)
    canvas.paint(path, np.where(unit(lots.block, 24) < 0.6, np.uint8(Mat.GRAVEL), np.uint8(Mat.ASPHALT_OLD)))
    track = street & (lots.kind >= Kind.FIELDS) & (unit(lots.block, 24) > 0.3)
    canvas.paint(track, Mat.SOIL_LIGHT)
    canvas.trees[street] = 0
    _park_cars(site, canvas, street & built)


def _park_cars(site: Site, canvas: Canvas, street: Bool) -> None:
    lots = site.lots
    a = lots.across
    kerb = np.where(lots.far_side, a.high_half - a.high, a.low_half - a.low)
    lane = street & (np.abs(kerb - np.float32(1.15)) < 0.95) & (lots.end > 4)
    cell = np.floor(lots.v / np.float32(6.2))
    bits = hashed(site.table.key[site.cells.own], cell.astype(np.int32), a.index * 2 + lots.far_side)
    within = np.abs(lots.v / np.float32(6.2) - cell - np.float32(0.5)) < 0.36
    car = lane & within & (unit(bits) < _CARS[lots.kind])
    canvas.paint(car, _car_colour(bits), gain=np.float32(0.75) + np.float32(0.5) * unit(bits, 24), height=1.5)


def paint_river(site: Site, canvas: Canvas) -> None:
    """Rivers with banks, and a pond in every park."""
    frame, lots = site.frame, site.lots
    river = river_at(site.seed, frame.y, frame.x)
    shore = np.abs(river.offset) - river.half_width + site.patches * np.float32(1.6)
    bank = (shore < 14) & (lots.kind != Kind.FIELDS) & ~(lots.street & (shore > 5)) | (shore < 6)
    material = np.where(site.patches > 0.45, np.uint8(Mat.DRY_GRASS), np.uint8(Mat.LAWN))
    canvas.clear(bank)
    canvas.paint(bank, material)
    canvas.trees[bank] = np.where(
        lots.kind == Kind.CENTRE, np.float32(0.12), np.clip(site.patches, 0.1, 0.75)
    )[bank]
    quay = bank & (lots.kind == Kind.CENTRE) & (shore < 4)
    canvas.paint(quay, Mat.PAVING)
    canvas.paint(bank & ~quay & (shore < 1.5 + site.patches * 3) & (site.patches > 0.2), Mat.SOIL_LIGHT)
    turbid = key(site.seed, "turbid") % 2
    canvas.clear(shore < 0)
    shallow = np.clip(1 + (shore + 6) * np.float32(0.05), 1, 1.3)
    canvas.paint(shore < 0, Mat.TURBID if turbid else Mat.WATER, gain=shallow)
    own = site.cells.own
    table = site.table
    radius = np.float32(34) + unit(table.key[own], 16) * 30 + site.patches * 16
    dy, dx = frame.y - table.y[own], frame.x - table.x[own]
    out = np.sqrt(dy * dy * np.float32(1.7) + dx * dx) - radius
    has_pond = (lots.kind == Kind.PARK) | ((lots.kind == Kind.FIELDS) & (unit(table.key[own], 24) < 0.25))
    canvas.clear(has_pond & (out < 4))
    canvas.paint(has_pond & (out < 4), Mat.DRY_GRASS)
    canvas.paint(has_pond & (out < 0), Mat.WATER if turbid else Mat.TURBID)


def paint_arterials(site: Site, canvas: Canvas) -> None:
    """The roads between districts, with markings, traffic and an avenue of trees; bridges over rivers."""
    table, cells = site.table, site.cells
    frame = site.frame
    for edge in cells.edge:
        half = (table.arterial[cells.own] + table.arterial[edge.other]) * np.float32(0.5)
        pair = table.key[cells.own] ^ table.key[edge.other]
        rural = half < 4.5
        exists = ~rural | (unit(pair, 8) < 0.55)
        urban = exists & ~rural
        water = canvas.material <= Mat.TURBID
        verge = urban & (edge.distance < half + 3.2) & ~water
        canvas.clear(verge & (canvas.height > 0))
        canvas.paint(
            verge & (canvas.material > Mat.TURBID),
            np.where(unit(pair, 16) < 0.5, np.uint8(Mat.LAWN), np.uint8(Mat.PAVING)),
        )
        canvas.trees[verge] = 0.5
        road = exists & (edge.distance < half)
        canvas.clear(road)
        bridge = road & water
        canvas.paint(road, np.where(rural, np.uint8(Mat.ASPHALT_OLD), np.uint8(Mat.ASPHALT)))
        canvas.height[bridge] = 5
        along = edge.normal[0] * frame.x - edge.normal[1] * frame.y
        _mark_and_drive(canvas, edge.distance, half, along, pair, urban)


def _mark_and_drive(
    canvas: Canvas, distance: F32, half: F32, along: F32, pair: NDArray[np.uint32], urban: Bool
) -> None:
    # Which side of the edge a pixel is on decides the sign of `along`; only its cells matter here.
    dash = _saw(along, np.float32(12.0)) < 0.45
    centre = urban & (distance < 0.45)
    canvas.paint(centre, Mat.MARKING, gain=0.8)
    lane = urban & (np.abs(distance - half / 2) < 0.3) & dash
    canvas.paint(lane, Mat.MARKING, gain=0.75)
    kerb = urban & (np.abs(half - distance - np.float32(0.4)) < 0.3)
    canvas.paint(kerb, Mat.CONCRETE)
    for offset in (0.25, 0.75):
        cell = np.floor(along / np.float32(15))
        bits = hashed(pair, cell.astype(np.int32) * 4 + int(offset * 2))
        place = np.abs(along / np.float32(15) - cell - np.float32(0.2) - unit(bits, 8) * np.float32(0.6))
        car = (
            urban
            & (np.abs(distance - half * np.float32(offset)) < 1.0)
            & (place < 0.16)
            & (unit(bits) < 0.33)
        )
        canvas.paint(
            car, _car_colour(bits), gain=np.float32(0.75) + np.float32(0.5) * unit(bits, 24), height=1.5
        )
