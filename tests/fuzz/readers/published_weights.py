"""A published `checkpoint.pth.tar`: torch's formats, in which a pickle says what to build."""

import collections
import io
import pickle
import struct
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import torch

from lorbms_fast.weights import fill, read_checkpoint
from tests.fuzz.reader import Reader

FILE = "checkpoint.pth.tar"
BARE = b"pickle:"
"""What follows is put into torch's zip, whose sums would give away that it was damaged."""


def seeds() -> list[bytes]:
    """Both of torch's formats; pickles that run code, ask for much memory or are not what they seem."""
    state: dict[str, object] = {"epoch": 3, "arch": "alexnet", "state_dict": _network().state_dict()}
    pickles = [
        pickle.dumps({"state_dict": {}}, 2),
        pickle.dumps(_Runs("os", "system", ("true",)), 2),
        pickle.dumps(_Runs("builtins", "bytearray", (1 << 40,)), 2),
        b"\x80\x02X" + struct.pack("<I", 2**32 - 1) + b"abc.",
        b"\x80\x02" + b"(" * 50_000 + b".",
        b"\x80\x02" + b"]" * 50_000 + b".",
        b"\x80\x02" + b"(l" + b"a" * 50 + b".",
        b"\x80\x02R.",
        b"\x80\x02N\x85R.",
        b"\x80\x02cbuiltins\nset\nN\x85R.",
        b"\x80\x02ccollections\nOrderedDict\nNR.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
        b"\x80\x02h\x07.",
        b"\x80\x02.",
    ]
    return [_saved(state, False), _saved(state, True), *(BARE + data for data in pickles), *pickles]


def read(data: bytes, folder: Path) -> None:
    """Load, and fill a network."""
    (folder / FILE).write_bytes(_zipped(data.removeprefix(BARE)) if data.startswith(BARE) else data)
    found = read_checkpoint(folder / FILE)
    fill(_network(), found.get("state_dict") if isinstance(found, dict) else found, folder / FILE)


class _Runs:
    """Is pickled as a call."""

    def __init__(self, module: str, name: str, arguments: tuple[Any, ...]) -> None:
        self.called, self.arguments = getattr(__import__(module), name), arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.called, self.arguments


@cache
def _network() -> torch.nn.Module:
    return torch.nn.Sequential(collections.OrderedDict(conv=torch.nn.Conv2d(1, 2, 3), norm=torch.nn.BatchNorm2d(2)))


def _saved(state: object, zipped: bool) -> bytes:
    file = io.BytesIO()
    torch.save(state, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def _zipped(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in (("data.pkl", data), ("version", b"3"), ("byteorder", b"little"), ("data/0", bytes(64))):
            archive.writestr(f"archive/{name}", content)
    return file.getvalue()


READER = Reader("published_weights", read, seeds, (FILE,))
