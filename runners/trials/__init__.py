"""Trials, from the job to the result row."""
