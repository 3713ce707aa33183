"""Published networks: one paper, one file."""
