"""Pages to look at a product with."""
