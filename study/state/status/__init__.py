"""How far a study is, for people who watch it."""
