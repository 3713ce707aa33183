"""Weights of a network from a file."""
