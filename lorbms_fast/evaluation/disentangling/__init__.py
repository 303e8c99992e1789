"""Whether a chunk holds its quadrant's object and nothing else: measures beyond the thesis (docs/evaluation.md)."""
