"""What is offered: presets with their cards, counts and drawings."""
