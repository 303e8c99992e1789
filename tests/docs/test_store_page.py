"""What the page on stores says is so."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from lorbms_fast.dataloader.prepare import prepare_store
from lorbms_fast.dataloader.recipes import Recipe
from lorbms_fast.dataloader.sources import of_folder
from lorbms_fast.dataloader.store import ImageStore

PAGE = Path(__file__).parents[2] / "docs" / "store.md"


def test_two_lines_read_all_images(photographs, tmp_path):
    prepare_store(tmp_path / "s", photographs, of_folder(photographs), Recipe(), shard_bytes=100_000)
    (lines,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len([line for line in lines.splitlines() if line]) == 2
    found: dict[str, Any] = {}
    exec(lines.replace("STORE", str(tmp_path / "s")), found)
    store = ImageStore.open(tmp_path / "s")
    assert len(found["shards"]) == len(store.images.files) > 1
    assert np.array_equal(np.concatenate(found["shards"]), store.images[:])
    assert np.array_equal(found["shards"][0][5], store.images[5])
