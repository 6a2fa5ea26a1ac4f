"""Convolutions that act on each channel alone, with stride 1 and zero padding that keeps the size."""
