"""Losses on what a network gives, and what their trainings need."""
