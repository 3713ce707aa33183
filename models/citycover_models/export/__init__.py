"""A network into a proven model file."""
