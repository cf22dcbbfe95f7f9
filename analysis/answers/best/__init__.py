"""The best configuration at each budget."""
