"""The published paper's figures, drawn as a study's are."""
