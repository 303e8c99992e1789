"""`store.json`, which says what else is in a store."""

import json
from pathlib import Path

from lorbms_fast.dataloader.store import FACTS, ImageStore, damaged
from tests.fuzz.material import as_json, lay_store, store_files
from tests.fuzz.reader import Reader


def seeds() -> list[bytes]:
    """As prepared, and nested as deeply as a parser can bear."""
    return [store_files()[FACTS], b"[" * 100_000]


def read(data: bytes, folder: Path) -> None:
    """Open, look at every image, compare checksums."""
    store = ImageStore.open(lay_store(folder, {FACTS: data}))
    assert len(store.images[:]) == len(store.ids) == len(store)
    assert len(store.digest) == 64
    list(damaged(store))


READER = Reader("store_facts", read, seeds, ("stranger-",), lambda: [json.loads(store_files()[FACTS])], as_json)
