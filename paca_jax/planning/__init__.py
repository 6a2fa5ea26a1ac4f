"""Compiling the train step for a TPU that is not there, and reading from the result what it needs and how long it takes."""
