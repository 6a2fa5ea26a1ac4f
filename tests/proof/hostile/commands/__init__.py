"""Command lines, config files, and the files that they name."""
