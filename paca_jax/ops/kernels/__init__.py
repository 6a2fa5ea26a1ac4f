"""TPU kernels in Pallas, and what they need."""
