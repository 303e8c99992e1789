"""Layers that compute what their plain definitions compute, with less work. Import them into any model."""
