"""The discriminator on lorbms_fast.kernels."""

import torch.nn.functional as F
from torch import Tensor

from lorbms_fast import reference
from lorbms_fast.models.spectral import normalized_weights


class Discriminator(reference.Discriminator):
    """The PatchGAN of Table 3.5, its three weights normalized together."""

    def features(self, images: Tensor) -> Tensor:
        """Compute the last convolution's input, (N, 8 width, S/16, S/16), from (N, 3, S, S) images in [-1, 1]."""
        W_bar = normalized_weights(self)
        x = F.leaky_relu(self.conv1(images), 0.2)
        for name, layer in (("conv2", self.conv2), ("conv3", self.conv3), ("conv4", self.conv4)):
            x = F.leaky_relu(F.conv2d(x, W_bar[name], layer.bias, layer.stride, layer.padding), 0.2)
        return x
