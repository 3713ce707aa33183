"""`python -m citycover_cli` is `citycover`."""

from citycover_cli.app import main

main()
