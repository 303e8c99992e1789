"""EfficientNet-Lite0 with its passes joined."""

import torch

from lorbms_fast.similarity.features.efficientnet import in_fewer_passes, pretrained


@torch.inference_mode()
def test_fewer_passes_compute_the_same():
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    exact = pretrained().extract_features(x)
    network = in_fewer_passes(pretrained())
    torch.testing.assert_close(network.extract_features(x), exact, rtol=1e-3, atol=1e-4 * exact.abs().max().item())
    left = [type(module).__name__ for module in network.modules()]
    assert "BatchNorm2d" not in left
    assert left.count("ZeroPad2d") == 5  # of stride 2: more on the right and below
