"""Samples from scenes and labels; published layouts."""
