"""What lies where a run keeps its blocks."""

LOCK = "lock"

SIGN = "identity.json"
"""Makes a place an unfinished run: put there last when a store begins, removed first when it goes."""

LEASE = "lease"
"""Says which run computes here, for workers that cannot see its lock."""

ATTEMPTS = "attempts.json"

LEDGER = "ledger"

ZARR = "store.zarr"
