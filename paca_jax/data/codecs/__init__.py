"""Decoding of image files, label maps and run-length encodings."""
