"""Tuning: the values to try, and the best of them."""
