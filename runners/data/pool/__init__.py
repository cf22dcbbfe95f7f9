"""Pools on disk: shards, index, subsets."""
