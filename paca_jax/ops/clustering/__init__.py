"""Convolution clustering."""
