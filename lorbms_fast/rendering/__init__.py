"""Drawings in one style: sheets of scenes and neighbours, transfers, curves."""
