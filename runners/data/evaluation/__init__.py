"""Evaluation sets on disk."""
