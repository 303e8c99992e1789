"""What the thesis measures, by name: generated images, linear probes, ablation, calibration; and scenes beyond it."""
