"""citycover: from imagery of a city to a finished, georeferenced land-cover product."""

__version__ = "0.1.0"
