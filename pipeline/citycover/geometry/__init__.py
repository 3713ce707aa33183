"""Where things lie: windows, grids, outlines, vectors. No pixels."""
