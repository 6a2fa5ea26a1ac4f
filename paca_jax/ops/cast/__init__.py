"""Parameters in the type of an operation."""
