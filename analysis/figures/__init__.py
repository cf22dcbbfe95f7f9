"""Drawing: marks in, files out. Nothing here computes."""
