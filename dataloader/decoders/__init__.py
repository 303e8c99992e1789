"""Decoders by name. A new one is a module and a line in `DECODERS`."""

import importlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lorbms_fast.dataloader.decoders import reference
from lorbms_fast.dataloader.decoders.interface import Crops, Decoder, Squares, cut
from lorbms_fast.dataloader.decoders.reference import decode_rgb, read_rgb
from lorbms_fast.dataloader.photograph import BadImage, Place
from lorbms_fast.dataloader.sources import stl10
from lorbms_fast.errors import UserError

__all__ = ["DECODERS", "BadImage", "Crops", "Decoder", "Squares", "cut", "decode_rgb", "decoder_named", "read_rgb"]
__all__ += ["read_squares"]

DECODERS = {"scaled": "scaled", "pillow": "reference", "dali": "dali"}
"""Name -> module, imported when it is asked for: DALI needs torch, which the processes that prepare can do without."""


def decoder_named(name: str) -> Decoder:
    """The decoder of a name.

    Raises:
        UserError: there is none of that name.
    """
    if name not in DECODERS:
        raise UserError(f"there is no decoder '{name}': choose one of {', '.join(DECODERS)}")
    decoder: Decoder = importlib.import_module(f"{__name__}.{DECODERS[name]}").decode
    return decoder


def read_squares(
    root: Path, places: Sequence[Place], crops: Sequence[Crops], side: int, decoder: Decoder
) -> list[Squares | BadImage]:
    """Squares of photographs: by `decoder`, and by the reference those it refuses. Bad ones are returned, not raised.

    Args:
        root: folder that the places are relative to.
        places: where the photographs are.
        crops: which squares of each are wanted.
        side: of the squares in pixels.
        decoder: one of `DECODERS`.
    """
    results: dict[int, Squares | BadImage] = {}
    encoded: dict[int, bytes] = {}
    for i, place in enumerate(places):
        try:
            data = place.read(root)
        except BadImage as bad:
            results[i] = bad
            continue
        if place.path.endswith(stl10.SUFFIX):
            results[i] = Squares.of(stl10.planes(np.frombuffer(data, np.uint8)), crops[i], side)
        else:
            encoded[i] = data
    found = decoder(list(encoded.values()), [crops[i] for i in encoded], side)
    for (i, data), squares in zip(encoded.items(), found, strict=True):
        results[i] = squares or reference.squares(data, root / str(places[i]), crops[i], side)
    return [results[i] for i in range(len(places))]
