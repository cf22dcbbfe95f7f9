"""Sources of pools: tars, tables and downloads, and the record of the files that a pool has read."""
