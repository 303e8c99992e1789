"""Image stores: photographs decoded once, read back as batches by index."""
