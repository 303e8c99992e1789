"""Views for training and testing."""

import colorsys

import numpy as np
import pytest
import torch

from lorbms_fast.dataloader.prefetch import ahead
from lorbms_fast.evaluation import crops
from lorbms_fast.evaluation.crops import Patch, central_crops, random_patch, saturated, training_crops
from lorbms_fast.evaluation.datasets.labelled import Labelled


def labelled(pictures: np.ndarray) -> Labelled:
    return Labelled(pictures, np.zeros(len(pictures), np.int64), ("one",), "a test")


@pytest.fixture
def pictures() -> Labelled:
    return labelled(np.random.default_rng(1).integers(0, 256, (6, 40, 50, 3), dtype=np.uint8))


def test_views_depend_on_seed_view_and_picture_alone(pictures):
    together = training_crops(pictures, range(6), 32, seed=3, view=7)
    assert together.shape == (6, 3, 32, 32)
    assert together.dtype == torch.float32
    assert together.abs().max() <= 1
    assert torch.equal(training_crops(pictures, [4], 32, seed=3, view=7)[0], together[4])
    for other in ({"seed": 4, "view": 7}, {"seed": 3, "view": 8}):
        assert not torch.equal(training_crops(pictures, range(6), 32, **other), together)


def test_patches_have_the_areas_and_aspects_of_the_protocol():
    generator = np.random.default_rng(0)
    patches = [random_patch(96, 96, generator) for _ in range(2000)]
    areas = np.array([p.height * p.width for p in patches]) / 96**2
    aspects = np.array([p.width / p.height for p in patches])
    assert 1 / 3 - 0.01 < areas.min() < 0.36
    assert 0.97 < areas.max() <= 1
    assert 3 / 4 - 0.02 < aspects.min() < 0.8
    assert 1.27 < aspects.max() < 4 / 3 + 0.02
    assert all(p.top >= 0 and p.left >= 0 and p.top + p.height <= 96 and p.left + p.width <= 96 for p in patches)
    assert random_patch(2, 200, generator) == Patch(0, 0, 2, 200), "no such aspect fits"


def test_half_of_the_views_are_mirrored_and_each_resize_is_used(monkeypatch):
    """A picture that grows brighter to the right, seen whole."""
    ramp = np.repeat(np.linspace(0, 255, 32).astype(np.uint8)[None, :, None], 32, 0).repeat(3, 2)
    monkeypatch.setattr(crops, "random_patch", lambda height, width, generator: Patch(0, 0, height, width))
    seen = training_crops(labelled(np.stack([ramp] * 400)), range(400), 48, seed=0, view=0).mean((1, 2))
    assert 150 < (seen[:, 0] > seen[:, -1]).sum() < 250
    methods = []
    monkeypatch.setattr(
        crops, "_resized", lambda p, patch, side, method: methods.append(method) or np.float32(p.T) / 255
    )
    training_crops(labelled(np.stack([ramp] * 400)), range(400), 48, seed=0, view=0)
    assert set(methods) == {crops.cv2.INTER_LINEAR, crops.cv2.INTER_CUBIC}
    assert 150 < methods.count(crops.cv2.INTER_CUBIC) < 250


def test_brightness_and_saturation_have_the_ranges_of_the_protocol():
    """Brightness moves all channels alike, and so leaves what saturation scales: their distance from the brightest."""
    picture = np.full((1, 8, 8, 3), (128, 96, 96), np.uint8)
    views = torch.stack([training_crops(labelled(picture), [0], 8, 0, view)[0, :, 4, 4] for view in range(400)])
    brightest, darkest = ((views[:, channel] + 1) * (255 / 2) for channel in (0, 1))
    shift, factor = brightest - 128, (brightest - darkest) / 32
    assert [round(shift.min().item()), round(shift.max().item())] == [-32, 32]
    assert [factor.min().item(), factor.max().item()] == pytest.approx([0.5, 1.5], abs=0.02)


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.0, 1.2, 1.5])
def test_saturation_is_that_of_hsv(factor):
    x = np.random.default_rng(0).random((3, 20))
    x[:, 0] = 0
    hsv = [colorsys.rgb_to_hsv(*color) for color in x.T.tolist()]
    expected = [colorsys.hsv_to_rgb(h, min(1, s * factor), v) for h, s, v in hsv]
    np.testing.assert_allclose(saturated(x, factor).T, expected, atol=1e-12)


def test_the_central_view_leaves_out_the_border():
    picture = np.full((1, 100, 100, 3), 255, np.uint8)
    picture[:, 7:93, 7:93] = 0
    assert (central_crops(labelled(picture), [0], 64) == -1).all()
    picture[:, 7, 50] = 255
    assert (central_crops(labelled(picture), [0], 86) > -1).any()


def test_ahead_keeps_the_order_and_tells_of_errors():
    assert list(ahead(lambda i: i * i, range(20), workers=3)) == [i * i for i in range(20)]
    with pytest.raises(ZeroDivisionError):
        list(ahead(lambda i: 1 // i, [1, 0, 2]))
