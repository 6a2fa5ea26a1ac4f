"""Calls of public functions."""
