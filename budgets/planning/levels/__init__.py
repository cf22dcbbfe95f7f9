"""Budget levels, and the trials that fit the study budget."""
