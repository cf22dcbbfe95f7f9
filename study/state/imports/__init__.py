"""Studies whose results come from a table."""
