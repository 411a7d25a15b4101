"""What is written to disk: files that appear whole, weights, digests and `record.json`."""
