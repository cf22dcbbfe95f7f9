"""Recommendation of a configuration for a compute and a data budget."""
