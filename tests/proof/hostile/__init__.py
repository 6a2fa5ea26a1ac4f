"""Hostile and malformed inputs of every kind, each made from a seed in a folder of its own."""
