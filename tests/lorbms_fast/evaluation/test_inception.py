"""The Inception network of FID, without its weights: sizes, names, resize."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from lorbms_fast.errors import UserError
from lorbms_fast.evaluation.inception import Block, Inception, load_inception, resize_as_tensorflow

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def network() -> Inception:
    torch.manual_seed(0)
    return Inception().eval()


def test_sizes_and_names(network: Inception):
    """Inception v3 without its auxiliary classifier has 21,785,568 convolution and norm parameters."""
    count = sum(p.numel() for name, p in network.named_parameters() if not name.startswith("fc."))
    assert count == 21_785_568
    names = set(network.state_dict())
    assert {"Conv2d_1a_3x3.conv.weight", "Mixed_5b.branch_pool.bn.running_var"} <= names
    assert {"Mixed_6e.branch7x7dbl_5.bn.bias", "Mixed_7c.branch3x3dbl_3b.conv.weight"} <= names
    assert network.fc.weight.shape == (1008, 2048)
    shapes = []
    hooks = [
        network.get_submodule(name).register_forward_hook(lambda _, __, y: shapes.append(tuple(y.shape[1:])))
        for name in network.blocks
    ]
    with torch.inference_mode():
        features, probabilities = network(torch.randint(0, 256, (1, 3, 64, 64)).float())
    for hook in hooks:
        hook.remove()
    assert shapes == [
        *((256, 35, 35), (288, 35, 35), (288, 35, 35)),
        *[(768, 17, 17)] * 5,
        *((1280, 8, 8), (2048, 8, 8), (2048, 8, 8)),
    ]
    assert features.shape == (1, 2048)
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-5)


def test_what_differs_from_later_inceptions(network: Inception):
    """Averages do not count padding, the last block pools by maximum, pixels are scaled by 128, logits have no bias."""
    pool = Block(1, [], "mean", 1).eval()
    torch.nn.init.ones_(pool.branch_pool.conv.weight)
    with torch.inference_mode():
        averages = pool(torch.ones(1, 1, 4, 4))
    torch.testing.assert_close(averages, averages[:, :, 1:2, 1:2].expand_as(averages))
    assert [network.get_submodule(name).pool for name in network.blocks[-2:]] == ["mean", "max"]
    seen = []
    hook = network.Conv2d_1a_3x3.register_forward_pre_hook(lambda _, images: seen.append(images[0].unique().tolist()))
    with torch.inference_mode():
        before = [network(torch.full((1, 3, 75, 75), value))[1] for value in (0.0, 192.0)]
        network.fc.bias += 1 + torch.arange(1008)
        after = network(torch.full((1, 3, 75, 75), 192.0))[1]
    hook.remove()
    assert seen == [[-1.0], [0.5], [0.5]]
    torch.testing.assert_close(after, before[1])


def test_resize_reads_at_unshifted_positions():
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    row = resize_as_tensorflow(ramp, 16)[0, 0, 0]
    torch.testing.assert_close(row, (torch.arange(16.0) / 2).clamp_max(7))
    torch.testing.assert_close(resize_as_tensorflow(ramp, 8), ramp)
    torch.testing.assert_close(resize_as_tensorflow(ramp, 4), ramp[..., ::2, ::2])
    assert not torch.allclose(resize_as_tensorflow(ramp, 16), F.interpolate(ramp, 16, mode="bilinear"))


def test_weights_come_by_path(network: Inception, tmp_path: Path):
    torch.save(network.state_dict(), tmp_path / "inception.pth")
    images = torch.rand(1, 3, 32, 32) * 255
    with torch.inference_mode():
        loaded = load_inception(tmp_path / "inception.pth", CPU)(images)[0]
        torch.testing.assert_close(loaded, network(images)[0])
    (tmp_path / "wrong.pth").write_bytes(b"weights")
    with pytest.raises(UserError, match=r"wrong\.pth cannot be loaded"):
        load_inception(tmp_path / "wrong.pth", CPU)
