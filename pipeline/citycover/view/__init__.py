"""A page on this machine to look at products with: `citycover view`."""
