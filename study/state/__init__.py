"""A study's files, and where it stands."""
