"""Scripts that print a table and write JSON; run them from the repository's root."""
