"""What the numbers of a band may be."""

from __future__ import annotations

from typing import Literal, get_args

Unit = Literal["dn", "reflectance", "dB", "m"]
"""Raw digital numbers, reflectance of 0 to 1, decibels, metres."""

UNITS: tuple[Unit, ...] = get_args(Unit)
