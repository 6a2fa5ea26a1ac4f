"""Batches as a function of seed and step, read ahead in threads or worker processes."""
