"""The outside world: what Farebox calls, always outside of a transaction."""
