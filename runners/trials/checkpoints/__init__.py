"""Checkpoints of a trial: their contents, their writing and their upload."""
