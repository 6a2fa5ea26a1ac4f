"""The config of a run on a command line: its flags, and their help."""
