"""Running a study's trials within its budget."""
