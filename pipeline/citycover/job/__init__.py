"""A request that was understood: metadata only."""
