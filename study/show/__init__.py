"""Text that people read in a terminal."""
