"""What lies where, from metadata alone."""
