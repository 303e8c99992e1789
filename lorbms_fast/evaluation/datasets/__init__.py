"""Labelled pictures, read from the files in which they are published."""
