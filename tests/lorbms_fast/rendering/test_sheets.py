"""Sheets and collages show what they say."""

import numpy as np
import pytest
import torch
from PIL import Image

from lorbms_fast.errors import UserError
from lorbms_fast.kernels.lorbms import mix_chunks
from lorbms_fast.models import build
from lorbms_fast.rendering import sheet as sheets
from lorbms_fast.rendering.scenes import collage, scene_sheet
from lorbms_fast.rendering.sheet import save_sheet, sheet
from lorbms_fast.rendering.transfer import interpolation, transfer
from lorbms_fast.types import Batch
from tests.conftest import TINY


def flat(value: int, side: int = 8) -> np.ndarray:
    return np.full((side, side, 3), value, np.uint8)


def test_images_stand_in_their_cells():
    page = np.asarray(sheet([[flat(10), None], [flat(20), flat(30, 200)]], ["a", "b"], ["first", "second"], cell=32))
    centre = lambda i, j: page[22 + i * 36 + 16, page.shape[1] - (2 - j) * 36 + 16, 0]  # noqa: E731
    assert [centre(0, 0), centre(0, 1), centre(1, 0), centre(1, 1)] == [10, 255, 20, 30]


def test_masks_come_with_the_order_of_their_digits():
    """Over the masks on the left, in a column that is wide enough."""
    batch = Batch(torch.zeros(1, 3, 8, 8), torch.zeros(4, 1, 3, 8, 8), torch.tensor([[True, False, False, True]]))
    corner = lambda page: np.asarray(page)[: sheets.HEADER, : page.width - 6 * (128 + sheets.GAP)]  # noqa: E731
    told, mute = corner(scene_sheet(batch, None, made=())), corner(sheet([[flat(1)] * 6], list("abcdef"), ["q1..q4"]))
    assert told.shape == mute.shape
    assert (told < 128).any()
    assert not (mute < 128).any()


def test_a_sheet_is_a_png_by_its_name_too(tmp_path):
    for name in ("a.png", "B.PNG", "c"):
        save_sheet(Image.fromarray(flat(10)), tmp_path / name)
    with pytest.raises(UserError, match=r"a\.mp4 would be a PNG by another name: choose one that ends in \.png"):
        save_sheet(Image.fromarray(flat(10)), tmp_path / "a.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["B.PNG", "a.png", "c"]


def test_ragged_rows_are_refused():
    with pytest.raises(ValueError, match="2 columns"):
        sheet([[flat(1)]], ["a", "b"])
    with pytest.raises(ValueError, match="1 row labels"):
        sheet([[flat(1)], [flat(1)]], ["a"], ["x"])


def test_collage_pastes_the_masked_quadrants():
    I_ref, I_q = torch.zeros(1, 3, 4, 4), torch.stack([torch.full((1, 3, 4, 4), float(q)) for q in (1, 2, 3, 4)])
    pasted = collage(I_ref, I_q, torch.tensor([[False, True, True, False]]))[0, 0]
    assert pasted.tolist() == [[0, 0, 2, 2], [0, 0, 2, 2], [3, 3, 0, 0], [3, 3, 0, 0]]


def test_transfer_mixes_chunks_of_both_photos():
    networks = build(TINY.model, "fast").eval()
    I_obj, I_ref = torch.rand(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mask = torch.tensor([[False, False, True, False]])
    found = transfer(networks, I_obj, I_ref, mask)
    with torch.no_grad():
        expected = networks.dec(mix_chunks(networks.enc(I_ref), networks.enc(I_obj), mask))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_interpolation_goes_from_reconstruction_to_mixed_scene():
    networks = build(TINY.model, "fast").eval()
    f_ref, f_obj = torch.randn(2, 3, 4, TINY.model.chunk, generator=torch.Generator().manual_seed(0)) * 5
    f_mix = mix_chunks(f_ref, f_obj, torch.tensor([[False, False, True, False], [True] * 4, [False] * 4]))
    images = interpolation(networks, f_ref, f_mix, torch.tensor([0.0, 0.25, 1.0]))
    with torch.no_grad():
        expected = [networks.dec(f) for f in (f_ref, 0.75 * f_ref + 0.25 * f_mix, f_mix)]
    torch.testing.assert_close(images, torch.stack(expected), rtol=0, atol=1e-5)
    assert (images[0, :2] - images[2, :2]).abs().amax((1, 2, 3)).min() > 1e-3
    torch.testing.assert_close(images[:, 2], images[:1, 2].expand(3, -1, -1, -1), rtol=0, atol=1e-5)
