"""Every fuzzed reader by name. A new one is a module with a `READER` and its name here."""

import importlib

from tests.fuzz.reader import Reader

NAMES = (
    "store_facts",
    "store_shard",
    "store_index",
    "neighbours",
    "settings",
    "run",
    "weights",
    "coco",
    "stl10",
    "voc",
    "tar",
    "pictures",
    "published_weights",
)


def reader(name: str) -> Reader:
    """The reader of a name."""
    found: Reader = importlib.import_module(f"tests.fuzz.readers.{name}").READER
    return found
