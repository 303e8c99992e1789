"""Chunks and the tiles they belong to."""

import pytest

from lorbms_fast.errors import UserError
from lorbms_fast.tiles import tile_of_chunk


def test_tiles():
    assert tile_of_chunk(4, 4).tolist() == [0, 1, 2, 3]
    assert tile_of_chunk(9, 9).tolist() == list(range(9))
    assert tile_of_chunk(8, 8).tolist() == list(range(8))
    assert tile_of_chunk(16, 4).tolist() == [0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 3, 3]
    assert tile_of_chunk(9, 4).tolist() == [0, 0, 1, 0, 0, 1, 2, 2, 3]


@pytest.mark.parametrize(("chunks", "tiles"), [(4, 9), (9, 8), (8, 4)])
def test_what_cannot_be_mixed(chunks, tiles):
    with pytest.raises(UserError, match=f"{chunks} chunks cannot be mixed in {tiles} tiles"):
        tile_of_chunk(chunks, tiles)
