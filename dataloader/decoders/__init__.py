"""Decoders by name. A new one is a module and a line in `DECODERS`."""

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lorbms_fast.dataloader.decoders import planes, reference
from lorbms_fast.dataloader.decoders.interface import Crops, CropsOf, Decoder, Squares, cut
from lorbms_fast.dataloader.decoders.reference import decode_rgb, read_rgb
from lorbms_fast.dataloader.image_file import BadImage, ByteRange
from lorbms_fast.dataloader.places import nearby
from lorbms_fast.errors import UserError

__all__ = ["DECODERS", "BadImage", "Crops", "CropsOf", "Decoder", "Squares", "cut", "decode_rgb", "decoder_named"]
__all__ += ["fastest", "read_rgb", "read_squares"]

DECODERS = {"scaled": "scaled", "pillow": "reference", "dali": "dali"}
"""Name -> module, imported when it is asked for: DALI needs torch, which the processes that prepare can do without."""

AT_ONCE = 64 << 20
"""Bytes of encoded photographs that are held at a time, about."""


def decoder_named(name: str) -> Decoder:
    """Find a decoder by name; UserError where there is none of that name."""
    if name not in DECODERS:
        raise UserError(f"there is no decoder '{name}': choose one of {', '.join(DECODERS)}")
    return importlib.import_module(f"{__name__}.{DECODERS[name]}").decode


def fastest() -> tuple[str, str]:
    """Choose a decoder for this machine, DALI where there is a GPU that it decodes on, and what to tell about it.

    Nothing is told where DALI is not installed.
    """
    try:
        installed = importlib.util.find_spec("nvidia.dali") is not None
    except ModuleNotFoundError:  # there is no package `nvidia` either
        installed = False
    if not installed:
        return "scaled", ""
    torch = importlib.import_module("torch")
    if not torch.cuda.is_available():
        return "scaled", "DALI is installed, but there is no GPU for it: JPEGs are decoded on the CPU"
    if obstacle := importlib.import_module(f"{__name__}.dali").obstacle(torch.device("cuda")):
        return "scaled", f"JPEGs are decoded on the CPU: {obstacle}"
    return "dali", f"JPEGs are decoded by DALI on {torch.cuda.get_device_name()}"


def read_squares(
    root: Path,
    places: Sequence[ByteRange],
    crops: Sequence[CropsOf],
    side: int,
    decoder: Decoder,
    intact: bool = False,
) -> list[Squares | BadImage]:
    """Read squares of photographs by `decoder`, and by the reference those it refuses.

    `places` are relative to `root`, which may be elsewhere (`dataloader.places`); `side` is in pixels. Each photograph
    gives its squares, or what is wrong with it; damage within a JPEG only where all are to be `intact`.
    """
    results: list[Squares | BadImage | None] = [None] * len(places)
    encoded: dict[int, bytes] = {}

    def decode() -> None:
        of_each = [crops[i](data) for i, data in encoded.items()]
        found = decoder(list(encoded.values()), of_each, side)
        for (i, data), of, squares in zip(encoded.items(), of_each, found, strict=True):
            results[i] = squares or reference.squares(data, root / str(places[i]), of, side, intact)
        encoded.clear()

    with nearby(root, places) as folder:
        for i, place in enumerate(places):
            try:
                data = place.read(folder)
            except BadImage as bad:
                results[i] = BadImage(root / place.path, bad.reason)
                continue
            if place.path.endswith(planes.SUFFIX):
                results[i] = Squares.of(planes.planes(np.frombuffer(data, np.uint8)), crops[i](data), side)
                continue
            encoded[i] = data
            if sum(map(len, encoded.values())) > AT_ONCE:
                decode()
    decode()
    return [result for result in results if result is not None]
