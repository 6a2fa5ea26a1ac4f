"""Patch-to-cluster attention and its residual."""
