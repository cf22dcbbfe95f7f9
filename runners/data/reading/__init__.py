"""Reading of a pool's pairs in a trial's order."""
