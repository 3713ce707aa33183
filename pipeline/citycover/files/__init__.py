"""How a file comes to be whole, locked and named."""
