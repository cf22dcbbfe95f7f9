"""Tables of the report, and the files that hold them."""
