"""SqueezeNet (Iandola et al., 2016) as classifier; the thesis saw it collapse (Appendix D.8)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorbms_fast.config import ModelConfig
from lorbms_fast.models.initial_values import Rule, constant, glorot
from lorbms_fast.reference.classifier import PAIR

INITIAL_VALUES: dict[str, Rule] = {
    r"cls\.(first|last|fire\d\..*)\.weight": glorot,
    r"cls\.(first|last|fire\d\..*)\.bias": constant(0),
}


class Fire(nn.Module):
    """Squeeze to few maps by 1x1, expand half by 1x1 and half by 3x3 convolutions, ReLU after each."""

    def __init__(self, in_channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(in_channels, squeezed, 1)
        self.expand1 = nn.Conv2d(squeezed, expanded // 2, 1)
        self.expand3 = nn.Conv2d(squeezed, expanded // 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Compute (N, expanded, H, W) maps from (N, in_channels, H, W)."""
        x = torch.relu(self.squeeze(x))
        return torch.relu(torch.cat([self.expand1(x), self.expand3(x)], dim=1))


class Classifier(nn.Module):
    """SqueezeNet 1.1 on an image pair: eight fire modules, a 1x1 convolution, ReLU, logits by averages over positions.

    As published, but for the dropout before the last convolution. Its last ReLU makes logits that are not negative;
    once all it lets through is 0, so are they, probabilities are 0.5, and no gradient comes back: the collapse of
    Appendix D.8. Without batch statistics, samples do not see each other: candidates can share a run.
    """

    images = PAIR

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = max(8, 2 * config.classifier_widths[0] // 3)
        self.first = nn.Conv2d(6, width, 3, stride=2)
        channels = width
        for i in range(8):
            expanded = 2 * width * (1 + i // 2)  # 128, 128, 256, 256, 384, 384, 512, 512
            self.add_module(f"fire{i}", Fire(channels, expanded // 8, expanded))
            channels = expanded
        self.last = nn.Conv2d(channels, config.tiles, 1)

    def forward(self, I_mix: Tensor, I_q: Tensor) -> Tensor:
        """Compute logits (N, tiles) or (G, N, tiles) from (N, 3, S, S) and (N, 3, S, S) or (G, N, 3, S, S)."""
        pairs = torch.cat([I_mix.expand_as(I_q), I_q], dim=-3)
        x = torch.relu(self.first(pairs.flatten(0, -4)))
        for i in range(8):
            if i in (0, 2, 4):
                x = F.max_pool2d(x, 3, stride=2)
            x = self.get_submodule(f"fire{i}")(x)
        return torch.relu(self.last(x)).mean((2, 3)).unflatten(0, I_q.shape[:-3])
