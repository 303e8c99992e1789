"""The classifier on lorbms_fast.kernels."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lorbms_fast import reference
from lorbms_fast.kernels import paired_conv2d, relu_grouped_batch_norm
from lorbms_fast.kernels.grouped_batch_norm.synchronised import synchronised_batch_norm
from lorbms_fast.reference.layers import BatchNorm


class Classifier(reference.Classifier):
    """AlexNet for all candidates of a mixed image in one run, each candidate with its own batch statistics.

    The first convolution is linear in the image pair, so the mixed image's half of it is computed once.
    """

    def forward(self, I_mix: Tensor, I_q: Tensor) -> Tensor:
        """(N, 3, S, S) and (G, N, 3, S, S) -> (G, N, 4) logits, one a quadrant."""
        groups = I_q.shape[0]
        x = paired_conv2d(I_mix, I_q.flatten(0, 1), self.conv1.weight, self.conv1.bias, stride=2)
        x = F.max_pool2d(_relu_norm(self.bn1, x, groups), 3, stride=2)
        x = F.max_pool2d(_relu_norm(self.bn2, self.conv2(x), groups), 3, stride=2)
        x = _relu_norm(self.bn3, self.conv3(x), groups)
        x = _relu_norm(self.bn4, self.conv4(x), groups)
        x = F.max_pool2d(_relu_norm(self.bn5, self.conv5(x), groups), 2, stride=1)
        x = x.permute(0, 2, 3, 1).flatten(1)  # the author's fully connected weights expect H, W, C order
        x = torch.relu(self.fc7(torch.relu(self.fc6(x))))
        logits: Tensor = self.fc8(x)
        return logits.unflatten(0, (groups, -1))


def _relu_norm(layer: BatchNorm, x: Tensor, groups: int) -> Tensor:
    """ReLU, then the layer's batch norm with statistics of each group; its averages follow one group after another."""
    if not layer.training:
        return layer(torch.relu(x))
    if layer.gather is None:
        y, means, variances = relu_grouped_batch_norm(x, layer.gamma, layer.beta, groups, layer.eps)
    else:
        x = torch.relu(x)
        y, means, variances = synchronised_batch_norm(x, layer.gamma, layer.beta, groups, layer.eps, layer.gather)
    layer.follow(means, variances)
    return y
