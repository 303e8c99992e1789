"""Operations of use to LORBMS alone: its loss, mixing of codes, batches, and layers made for its networks."""

from lorbms_fast.kernels.lorbms.adam import step_size
from lorbms_fast.kernels.lorbms.batch_assembly import assemble_batch
from lorbms_fast.kernels.lorbms.chunk_mixing import mix_chunks, mix_used
from lorbms_fast.kernels.lorbms.dense_block_pooled import dense_block_pooled
from lorbms_fast.kernels.lorbms.layers import (
    Linear,
    PairedConv2d,
    SpectralOutputConv2d,
    SpectralResizeConv2d,
    TransitionDown,
)
from lorbms_fast.kernels.lorbms.linear import linear
from lorbms_fast.kernels.lorbms.loss_head import classification_loss, discrimination_loss, loss_head
from lorbms_fast.kernels.lorbms.output_conv import output_conv2d
from lorbms_fast.kernels.lorbms.paired_conv import paired_conv2d
from lorbms_fast.kernels.lorbms.pooled_conv import pooled_conv2d

__all__ = [
    "Linear", "PairedConv2d", "SpectralOutputConv2d", "SpectralResizeConv2d", "TransitionDown", "assemble_batch",
    "classification_loss", "dense_block_pooled", "discrimination_loss", "linear", "loss_head", "mix_chunks", "mix_used",
    "output_conv2d", "paired_conv2d", "pooled_conv2d", "step_size",
]  # fmt: skip
