"""Photographs shipped with the package, and data sets composed from them with every object's place and mask known."""
