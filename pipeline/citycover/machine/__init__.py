"""What a run runs on: memory, devices, clocks of its stages; how it is stopped."""
