"""Formats of files of weights: safetensors, and those of PyTorch."""
