"""Which maps the C++ loops can go through."""

import pytest
import torch

from lorbms_fast.kernels._common.cpp.lines import known_line_stride, line_stride, same_lines


@pytest.mark.parametrize(
    ("maps", "expected"),
    [
        (torch.empty(2, 5, 3, 4).contiguous(memory_format=torch.channels_last), 5),
        (torch.empty(2, 9, 3, 4).contiguous(memory_format=torch.channels_last)[:, 2:7], 9),
        (torch.empty(2, 5, 1, 1), 1),
        (torch.empty(2, 1, 3, 4), 1),
        (torch.empty(2, 5, 3, 4, 6).contiguous(memory_format=torch.channels_last_3d), 5),
        (torch.empty(2, 5, 3, 1, 6).contiguous(memory_format=torch.channels_last_3d), 5),
        (torch.empty(2, 5, 3, 4), None),
        (torch.empty(2, 5, 1, 1).expand(2, 5, 3, 4), None),
        (torch.empty(2, 5, 3, 4).contiguous(memory_format=torch.channels_last)[..., 1:], None),
        (torch.empty(2, 5, 3, 4).contiguous(memory_format=torch.channels_last).transpose(2, 3), None),
    ],
    ids=[
        "whole",
        "slice",
        "one position",
        "one channel",
        "volumes",
        "flat volumes",
        "contiguous",
        "expanded",
        "a column less",
        "transposed",
    ],
)
def test_lines(maps, expected):
    assert line_stride(maps) == known_line_stride(maps.shape, maps.stride()) == expected


def test_what_loops_cannot_go_through():
    maps = torch.empty(2, 5, 3, 4).contiguous(memory_format=torch.channels_last)
    assert same_lines(maps, maps)
    assert not same_lines(maps, maps.double())
    assert not same_lines(maps, maps[:, 1:])
    assert same_lines(maps.half())
    assert not same_lines(maps.int())
    assert not same_lines(maps.to("meta"))
    assert not same_lines(maps[:, :, 0, 0])
    assert not same_lines(torch._neg_view(maps))
    assert not same_lines(torch._efficientzerotensor(maps.shape))
    assert not same_lines(torch.empty(maps.shape).to_mkldnn())
