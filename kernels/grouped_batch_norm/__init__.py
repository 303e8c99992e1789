"""Batch normalization of several batches that lie in one tensor, each with its own statistics."""

from lorbms_fast.kernels.grouped_batch_norm.functional import grouped_batch_norm, relu_grouped_batch_norm
from lorbms_fast.kernels.grouped_batch_norm.modules import GroupedBatchNorm2d, Statistics, follow

__all__ = ["GroupedBatchNorm2d", "Statistics", "follow", "grouped_batch_norm", "relu_grouped_batch_norm"]
