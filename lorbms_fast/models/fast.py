"""The four networks on lorbms_fast.kernels."""

from lorbms_fast.models.classifier import Classifier
from lorbms_fast.models.decoder import Decoder
from lorbms_fast.models.discriminator import Discriminator
from lorbms_fast.models.encoder import Encoder

__all__ = ["Classifier", "Decoder", "Discriminator", "Encoder"]
