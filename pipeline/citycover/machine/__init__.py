"""What a run runs on: memory, devices, clocks of its stages."""
