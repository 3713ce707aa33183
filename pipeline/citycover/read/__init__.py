"""Pixels of a scene."""
