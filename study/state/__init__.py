"""A study's files, its plan, the states of its trials and its book."""
