"""Measurements before a run: speed and memory of each kind of trial, and checks of every node."""
