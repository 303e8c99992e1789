"""Comparison of this program with numbers that the author's own program made."""
