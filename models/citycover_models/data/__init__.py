"""From rasters to chips: what training reads."""
