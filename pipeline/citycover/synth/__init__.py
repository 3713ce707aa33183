"""A procedural city to practise on: believable imagery whose truth is known. See `docs/synth.md`."""

__all__ = ["CITY", "SYNTH_VERSION", "SynthResult", "write_city"]
