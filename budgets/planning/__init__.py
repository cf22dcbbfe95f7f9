"""From a declaration to a plan within the budget."""
