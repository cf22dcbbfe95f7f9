"""Pools of a run and of the commands on pools: embedded ones are built, workers are found."""
