"""What a model does with its clusters, in numbers."""
