"""Recipe, loop, checkpoint and what a training leaves."""
