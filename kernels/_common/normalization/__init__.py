"""Normalization of channels by statistics of groups of samples, on CUDA: instance norm and batch norm."""
