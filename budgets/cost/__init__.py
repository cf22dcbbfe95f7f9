"""The cost of a trial: FLOPs, parameters and memory."""
