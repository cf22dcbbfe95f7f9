"""Conversion of YAML files to declarations and back; column maps of imported tables."""
