"""Measurements of the thesis: generated images, linear probes, ablation, calibration; and scenes beyond it."""
