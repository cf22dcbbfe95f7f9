"""What a researcher declares: sections, keys and values, as plain data."""
