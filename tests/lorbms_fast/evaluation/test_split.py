"""Photographs dealt into a part to learn from and a part to test on."""

import numpy as np
import pytest

from lorbms_fast.evaluation.split import split_photographs


@pytest.mark.parametrize(("share", "learned"), [(0.5, 20), (0.9, 36), (1.0, 38), (0.0, 2)])
def test_versions_of_a_photograph_stay_together(share, learned, composed_store):
    split = split_photographs(composed_store, share, 0)
    sources = np.array(composed_store.index["source"].to_pylist())
    assert sorted([*split.train, *split.test]) == list(range(40))
    assert len(split.train) == learned
    assert not set(sources[split.train]) & set(sources[split.test])
    assert list(split_photographs(composed_store, share, 1).train) != list(split.train)
