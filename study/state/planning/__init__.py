"""From a study's declaration to its plan: facts of pools and evaluation sets, checks, measured speeds."""
