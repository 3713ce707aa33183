"""What people make of a map: polygons, areas, change, a tidier map."""
