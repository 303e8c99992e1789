"""A trained generator in forms that need neither this program nor PyTorch."""
