"""What the runs of a study say about the true errors of all its configurations."""
