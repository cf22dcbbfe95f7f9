"""Records that trials leave: results, curves, counts of FLOPs, and logs."""
