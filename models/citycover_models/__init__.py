"""The published networks and methods: learn, evaluate, export."""
