"""The command line of citycover: one verb, one file."""
