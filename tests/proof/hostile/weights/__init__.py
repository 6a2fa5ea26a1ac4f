"""Weights, what is recorded with them, and workdirs."""
