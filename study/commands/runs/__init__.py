"""The commands that spend compute, and those that watch and stop them."""
