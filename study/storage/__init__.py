"""A study's files in a bucket."""
