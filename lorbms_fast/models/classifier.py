"""The classifier on lorbms_fast.kernels."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lorbms_fast import reference
from lorbms_fast.kernels import relu_grouped_batch_norm
from lorbms_fast.kernels.grouped_batch_norm.synchronized import synchronized_batch_norm
from lorbms_fast.kernels.lorbms import paired_conv2d
from lorbms_fast.reference.layers import BatchNorm, follow


class Classifier(reference.Classifier):
    """AlexNet for all candidates of a mixed image in one run, each candidate with its own batch statistics.

    The first convolution is linear in the image pair, so the mixed image's half of it is computed once.
    """

    def forward(self, I_mix: Tensor, I_q: Tensor) -> Tensor:
        """Compute (G, N, 4) logits, one a quadrant, from (N, 3, S, S) and (G, N, 3, S, S) images."""
        groups = I_q.shape[0]
        norms = [self.bn1, self.bn2, self.bn3, self.bn4, self.bn5]
        statistics: list[tuple[Tensor, Tensor]] = []

        def relu_norm(layer: BatchNorm, x: Tensor) -> Tensor:
            if not layer.training:
                return layer(torch.relu(x))
            y, means, variances = _relu_norm(layer, x, groups)
            statistics.append((means, variances))
            return y

        x = paired_conv2d(I_mix, I_q.flatten(0, 1), self.conv1.weight, self.conv1.bias, stride=2)
        x = F.max_pool2d(relu_norm(self.bn1, x), 3, stride=2)
        x = F.max_pool2d(relu_norm(self.bn2, self.conv2(x)), 3, stride=2)
        x = relu_norm(self.bn3, self.conv3(x))
        x = relu_norm(self.bn4, self.conv4(x))
        x = F.max_pool2d(relu_norm(self.bn5, self.conv5(x)), 2, stride=1)
        x = x.permute(0, 2, 3, 1).flatten(1)  # the author's fully connected weights expect H, W, C order
        x = torch.relu(self.fc7(torch.relu(self.fc6(x))))
        logits: Tensor = self.fc8(x)
        if statistics:
            follow(norms, statistics)
        return logits.unflatten(0, (groups, -1))


def _relu_norm(layer: BatchNorm, x: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """ReLU, then the layer's batch norm with statistics of each group, (groups, C), which follow the result."""
    if layer.gather is None:
        return relu_grouped_batch_norm(x, layer.gamma, layer.beta, groups, layer.eps)
    return synchronized_batch_norm(torch.relu(x), layer.gamma, layer.beta, groups, layer.eps, layer.gather)
