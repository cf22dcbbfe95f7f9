"""Models: built from the catalogue, loaded, exported."""
