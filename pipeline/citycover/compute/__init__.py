"""A job into the store, here or on a cluster."""
