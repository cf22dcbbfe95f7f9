"""Scheduling of trials on nodes, and the backends that run them."""
