"""Measures of whether a chunk holds its quadrant's object and nothing else: beyond the thesis (docs/evaluation.md)."""
