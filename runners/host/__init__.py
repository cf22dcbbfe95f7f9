"""Files, processes, storage and faults of one machine."""
