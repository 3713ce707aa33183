"""A procedural city to practise on: believable imagery whose truth is known. See `docs/synth.md`."""

from citycover.synth.parameters import CITY, SYNTH_VERSION
from citycover.synth.write import SynthResult, write_city

__all__ = ["CITY", "SYNTH_VERSION", "SynthResult", "write_city"]
