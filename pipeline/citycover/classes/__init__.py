"""What numbers mean: legends, tables between them, rasters of class numbers."""
