"""Benchmarks: recipes, searches and cells, from a TOML file to a record."""
