"""Bands and statistics of sensors."""
