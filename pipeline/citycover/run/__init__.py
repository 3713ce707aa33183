"""The facades: from a request to a product."""
