"""Imagery of a place and coarse labels of it into a finer map: train, map with the labels, judge."""
