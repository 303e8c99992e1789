"""`model.safetensors`: a header that says how much follows. Documents are headers, before the right bytes."""

import json
from functools import cache
from pathlib import Path

from safetensors.torch import save

from lorbms_fast.checkpoint import MODEL, load_weights
from lorbms_fast.config import ModelConfig
from lorbms_fast.models import build
from lorbms_fast.types import Networks
from tests.fuzz.reader import Reader

SMALL = ModelConfig(
    stem=1,
    growth=1,
    layers=(1, 1, 1, 1, 1),
    chunk=1,
    discriminator_width=1,
    classifier_widths=(2, 2, 2, 2, 2),
    classifier_hidden=1,
)


def seeds() -> list[bytes]:
    """As saved; with headers that are none."""
    right = _right()
    return [
        right,
        right[:-1],
        (2**63).to_bytes(8, "little") + right[8:],
        (2**64 - 1).to_bytes(8, "little"),
        (100_000).to_bytes(8, "little") + b"[" * 100_000,
        (2).to_bytes(8, "little") + b"{}",
        b"",
    ]


def read(data: bytes, folder: Path) -> None:
    """Fill networks."""
    (folder / MODEL).write_bytes(data)
    load_weights(_networks(), folder / MODEL)


def documents() -> list[object]:
    """Headers."""
    return [json.loads(_right()[8 : 8 + _length()])]


def written(header: object) -> bytes:
    """A header before the right bytes."""
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + _right()[8 + _length() :]


@cache
def _networks() -> Networks:
    return build(SMALL, "fast")


@cache
def _right() -> bytes:
    return save({name: tensor.contiguous() for name, tensor in _networks().state_dict().items()})


def _length() -> int:
    return int.from_bytes(_right()[:8], "little")


READER = Reader("weights", read, seeds, (MODEL,), documents, written)
