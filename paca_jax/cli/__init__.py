"""The command lines, as thin faces over functions."""
