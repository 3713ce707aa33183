"""From strips of the image to finished blocks of the map."""
