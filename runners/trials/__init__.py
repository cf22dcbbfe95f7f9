"""One trial, from its job to its result row."""
