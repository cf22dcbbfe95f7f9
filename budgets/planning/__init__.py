"""Planning: turns a declaration into a plan within the budget."""
