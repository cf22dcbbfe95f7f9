"""Devices, with their published and measured speeds."""
