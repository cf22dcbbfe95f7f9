"""Which trial runs where, and the backends that run it."""
