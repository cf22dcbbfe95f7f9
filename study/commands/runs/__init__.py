"""The commands that spend compute, watch it, and stop it."""
