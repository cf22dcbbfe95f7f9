"""The best model size at each budget."""
