"""Places of a pool's shards: a folder, or a URL with a cache on the node."""
