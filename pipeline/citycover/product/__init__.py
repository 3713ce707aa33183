"""The store into a product folder, and a product folder opened again."""
