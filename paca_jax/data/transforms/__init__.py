"""Transforms of pictures and their targets on the host."""
