"""Time limit of the communication between ranks, apart from `ranks` because a driver has no torch."""

GROUP_TIMEOUT_S = 3600.0
"""Longest time in seconds that a rank waits for the others in one operation.

Rank 0 evaluates on the way and writes checkpoints while the others wait, which may take longer than NCCL's
own ten minutes. The end of a rank is noticed by its process, long before this limit.
"""
