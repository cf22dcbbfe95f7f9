"""Status of a study, for people who watch it."""
