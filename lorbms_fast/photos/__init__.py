"""Photographs shipped with the package, and scenes composed from them."""
