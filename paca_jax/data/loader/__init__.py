"""Batches as a function of the seed and the step, prepared ahead in threads or worker processes."""
