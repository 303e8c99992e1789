"""NVIDIA DALI: JPEGs decoded in batches, on a GPU straight into its memory, or on the CPU by the same pipeline."""

import importlib
from collections.abc import Sequence
from functools import cache
from io import BytesIO
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from lorbms_fast.dataloader.decoders.interface import Crops, Squares
from lorbms_fast.dataloader.decoders.jpeg import plain_size
from lorbms_fast.dataloader.recipes import Crop
from lorbms_fast.errors import UserError

BATCH = 64
THREADS = 2
END_OF_IMAGE = b"\xff\xd9"
_one_at_a_time = Lock()
"""Batches are read ahead by several threads, and a pipeline is for one."""


def decode(encoded: Sequence[bytes], crops: Sequence[Crops], side: int) -> list[Squares | None]:
    """Decode squares of JPEGs, within 2 gray levels of the reference.

    Refuses what `plain_size` does, files without an end, and what DALI itself refuses.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def cut(pixels: Tensor, crop: Crop, side: int) -> NDArray[np.uint8]:
        return square(pixels, crop, side).cpu().numpy()

    found = zip(decoded(encoded, device), crops, strict=True)
    return [None if pixels is None else Squares.of(pixels, of, side, cut) for pixels, of in found]


def decoded(encoded: Sequence[bytes], device: torch.device) -> list[Tensor | None]:
    """Decode whole photographs, uint8 (H, W, 3) on the device, None where one is refused; UserError without DALI."""
    # The CPU's decoder refuses JPEGs without an end itself, nvJPEG is not known to.
    ended = [data[-1024:].rstrip(b"\0").endswith(END_OF_IMAGE) for data in encoded]
    taken = [i for i, data in enumerate(encoded) if ended[i] and plain_size(data)]
    results: list[Tensor | None] = [None] * len(encoded)
    for start in range(0, len(taken), BATCH):
        rows = taken[start : start + BATCH]
        for row, pixels in zip(rows, _halving([encoded[row] for row in rows], device), strict=True):
            results[row] = pixels
    return results


@cache
def obstacle(device: torch.device) -> str:
    """Decode a small JPEG on a device by DALI, to see whether it can; returns why not, or nothing."""
    file = BytesIO()
    Image.new("RGB", (16, 16)).save(file, format="JPEG")
    try:
        (pixels,) = decoded([file.getvalue()], device)
    except UserError as error:
        return str(error)
    return "" if pixels is not None else "DALI decodes nothing here"


def square(pixels: Tensor, crop: Crop, side: int) -> Tensor:
    """Cut out a square of (H, W, 3) and resample it by area, or linearly if it is smaller: (side, side, 3).

    In float64, which neither autocast nor TF32 rounds: what a training allows, its readers' threads are allowed too.
    """
    part = pixels[crop.y : crop.y + crop.side, crop.x : crop.x + crop.side].double()
    weights = _weights(crop.side, side, pixels.device)
    averages = torch.einsum("ih,hwc,jw->ijc", weights, part, weights)
    rounded = averages.round().clamp(0, 255).to(torch.uint8)
    return rounded.flip(1) if crop.flip else rounded


def _halving(encoded: list[bytes], device: torch.device) -> list[Tensor | None]:
    """Decode a batch; one bad file fails it whole, so halves are tried until the file is alone."""
    try:
        return list(_run(encoded, device))
    except RuntimeError as error:
        if "dlopen" in str(error):  # a library is missing: no file is to blame
            reason = next(line.strip() for line in str(error).splitlines() if "dlopen" in line)
            raise UserError(f"the decoder 'dali' lacks a part of DALI: {reason}") from error
        _pipeline.cache_clear()  # a pipeline that failed is not to be used again
        if len(encoded) == 1:
            return [None]
    half = len(encoded) // 2
    return _halving(encoded[:half], device) + _halving(encoded[half:], device)


def _run(encoded: list[bytes], device: torch.device) -> list[Tensor]:
    with _one_at_a_time:
        pipeline = _pipeline(device)
        pipeline.feed_input("encoded", [np.frombuffer(data, np.uint8) for data in encoded])
        (batch,) = pipeline.run()
        copies = [from_dlpack(batch[i]).clone() for i in range(len(encoded))]
        if device.type == "cuda":  # DALI uses its memory again, and does not know who still reads it
            torch.cuda.current_stream(device).synchronize()
    return copies


@cache
def _pipeline(device: torch.device) -> Any:
    try:
        dali = importlib.import_module("nvidia.dali")
        fn = importlib.import_module("nvidia.dali.fn")
    except ImportError as error:
        raise UserError(f"the decoder 'dali' needs DALI ({error}): pip install 'lorbms-fast[cuda]'") from error
    on_gpu = device.type == "cuda"
    number = (torch.cuda.current_device() if device.index is None else device.index) if on_gpu else None
    pipeline = dali.Pipeline(BATCH, THREADS, number, prefetch_queue_depth=1)
    with pipeline:
        encoded = fn.external_source(name="encoded", dtype=dali.types.UINT8)
        pipeline.set_outputs(fn.decoders.image(encoded, device="mixed" if on_gpu else "cpu"))
    pipeline.build()
    return pipeline


@cache
def _weights(length: int, side: int, device: torch.device) -> Tensor:
    """Weight of each pixel in each average, (side, length); linear interpolation if there are fewer pixels."""
    if length < side:
        identity = torch.eye(length, dtype=torch.float64, device=device)[None]
        return torch.nn.functional.interpolate(identity, size=side, mode="linear")[0].T
    edges = torch.arange(side + 1, dtype=torch.float64) * length / side
    pixels = torch.arange(length, dtype=torch.float64)
    covered = torch.minimum(edges[1:, None], pixels + 1) - torch.maximum(edges[:-1, None], pixels)
    return (covered.clamp(min=0) * side / length).to(device)
