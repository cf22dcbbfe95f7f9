"""The report of a study: page, tables, files."""
