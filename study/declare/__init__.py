"""YAML to declaration and back."""
