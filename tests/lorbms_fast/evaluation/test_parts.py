"""Photographs dealt into parts."""

import numpy as np
import pytest

from lorbms_fast.evaluation.parts import part_photographs


@pytest.mark.parametrize(("share", "learned"), [(0.5, 20), (0.9, 36), (1.0, 38), (0.0, 2)])
def test_versions_of_a_photograph_stay_together(share, learned, composed_store):
    parts = part_photographs(composed_store, share, 0)
    sources = np.array(composed_store.index["source"].to_pylist())
    assert sorted([*parts.train, *parts.test]) == list(range(40))
    assert len(parts.train) == learned
    assert not set(sources[parts.train]) & set(sources[parts.test])
    assert list(part_photographs(composed_store, share, 1).train) != list(parts.train)
