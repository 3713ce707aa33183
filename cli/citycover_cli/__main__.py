"""`python -m citycover_cli` is `citycover`."""

from citycover_cli.start import main

main()
