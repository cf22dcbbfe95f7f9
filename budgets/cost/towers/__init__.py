"""Towers of open_clip and timm, each with its multiply-accumulates and parameters."""
