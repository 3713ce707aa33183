"""A map against a truth."""
