"""Answers: the best configuration, crossovers, worth, recommendations."""
