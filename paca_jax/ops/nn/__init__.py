"""Array functions of layers."""
