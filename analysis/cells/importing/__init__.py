"""Import of tables of results into the results schema."""
