"""Runs of a study: tuning and grid trials within the budget, and calibration."""
