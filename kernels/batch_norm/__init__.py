"""Batch normalization (Ioffe and Szegedy, 2015) with an activation behind it."""

from lorbms_fast.kernels.batch_norm.functional import batch_norm_act
from lorbms_fast.kernels.batch_norm.modules import BatchNormAct, BatchNormAct2d, BatchNormAct3d

__all__ = ["BatchNormAct", "BatchNormAct2d", "BatchNormAct3d", "batch_norm_act"]
