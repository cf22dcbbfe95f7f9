"""What trials leave behind: results, curves, counts of FLOPs, and logs."""
