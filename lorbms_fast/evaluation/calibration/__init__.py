"""The autoencoder calibration of Section 3.6.1: which decoder reconstructs best."""
