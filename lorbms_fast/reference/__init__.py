"""The plain PyTorch form, written as the thesis's tables read and never optimized: the yardstick for the rest."""

from lorbms_fast.reference.classifier import Classifier
from lorbms_fast.reference.decoder import Decoder
from lorbms_fast.reference.encoder import Encoder

__all__ = ["Classifier", "Decoder", "Encoder"]
