"""Estimates from compiling the train step for a TPU that is not attached: its memory, its time and its collectives."""
