"""Building, indexing and scoring pools."""
