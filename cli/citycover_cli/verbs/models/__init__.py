"""`citycover models`: what is offered, how it looks, how fast it is."""
