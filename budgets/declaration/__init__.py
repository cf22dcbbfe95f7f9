"""Declarations of studies: sections, keys and values, as plain data."""
