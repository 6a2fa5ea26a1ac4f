"""The proof that an exported program does what its model does."""
