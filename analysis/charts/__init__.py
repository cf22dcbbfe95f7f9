"""Figures as data, before they are drawn."""
