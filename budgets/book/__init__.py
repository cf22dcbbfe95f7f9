"""The FLOP book of a study: reserved, spent, wasted, and reconciled with its plan."""
