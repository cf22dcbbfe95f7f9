"""The index of a pool, part by part, and the selection of subsets from it."""
