"""Triton form of instance norm."""
