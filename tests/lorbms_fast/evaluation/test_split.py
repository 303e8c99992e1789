"""Photographs dealt into a part to learn from and a part to test on."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from lorbms_fast.evaluation.split import photographs_of, split_photographs


@pytest.mark.parametrize(("share", "learned"), [(0.5, 20), (0.9, 36), (1.0, 38), (0.0, 2)])
def test_versions_of_a_photograph_stay_together(share, learned, composed_store):
    split = split_photographs(composed_store, share, 0)
    sources = np.array(composed_store.index["source"].to_pylist())
    assert sorted([*split.train, *split.test]) == list(range(40))
    assert len(split.train) == learned
    assert not set(sources[split.train]) & set(sources[split.test])
    assert list(split_photographs(composed_store, share, 1).train) != list(split.train)


def test_photographs_of_one_archive_are_several():
    index = pa.table({"source": ["a.tar", "a.tar", "a.tar", "b.jpg"], "offset": [512, 512, 0, 0]})
    assert photographs_of(SimpleNamespace(index=index)).tolist() == [1, 1, 0, 2]
