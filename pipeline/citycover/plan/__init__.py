"""Which windows and blocks, what they cost, how they are shared out: pure numbers."""
