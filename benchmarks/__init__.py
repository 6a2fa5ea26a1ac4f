"""Benchmarks that print a table and write JSON; run them from the root of the repository."""
