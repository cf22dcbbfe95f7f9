"""A pool on disk: shards, index, subsets."""
