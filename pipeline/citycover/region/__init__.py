"""Many scenes from one file, again and again: what is new is mapped, what is done is left alone."""
