"""What a run has finished so far."""
