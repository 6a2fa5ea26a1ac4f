"""Command lines: thin faces over functions."""
