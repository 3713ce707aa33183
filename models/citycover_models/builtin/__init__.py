"""Makes the built-in model files again."""
