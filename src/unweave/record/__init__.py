"""Everything written to disk: atomic files, weights, digests and `record.json`."""
