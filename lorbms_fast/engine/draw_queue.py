"""A queue of the coming iterations' draws, made ahead of time on the images' device."""

import torch
from torch import Tensor

from lorbms_fast.engine.async_metrics import HostCopy
from lorbms_fast.mixing import padded_candidates
from lorbms_fast.types import DrawFn

AHEAD = 64
"""Number of iterations that are drawn at a time; the next as many are there before the first of these begins."""


class DrawQueue:
    """A ring of draws on the device, and on the host the number of candidates that each of them uses.

    That number decides which graph an iteration takes, so the host must know it; it is sent off when the draws are
    made, `AHEAD` iterations before it is asked for.
    """

    def __init__(self, drawing: DrawFn, batch_size: int, batches: int, device: torch.device) -> None:
        self._drawing, self._n, self._batches = drawing, batch_size, batches
        self.slots = torch.zeros((2 * AHEAD, batches, 15 * batch_size), dtype=torch.int64, device=device)
        """Slot i modulo their number is iteration i's: 5 N rows, 4 N of the mask, 2 x 3 N used candidates a batch."""
        self._sent: dict[int, HostCopy] = {}
        self._counts: list[float] = []
        self._next: tuple[int, range] | None = None

    def ready(self, iteration: int, numbers: range) -> int:
        """See to it that an iteration's draws are in its slot; return the most candidates that one of its batches uses.

        The iteration is the one after the last call's, or draws are made anew from here. `numbers` are its batches';
        later iterations' follow in the same steps.
        """
        part, place = divmod(iteration, AHEAD)
        anew = self._next != (iteration, numbers)
        self._next = iteration + 1, _shifted(numbers, 1)
        if anew:
            self._sent = {part: self._draw(iteration, (part + 1) * AHEAD, numbers)}
        if anew or not place:
            first = (part + 1) * AHEAD
            self._sent[part + 1] = self._draw(first, first + AHEAD, _shifted(numbers, first - iteration))
            self._counts = self._sent.pop(part).read()
        return int(self._counts[place])

    def rehearse(self, size: int, images: int) -> None:
        """Fill all slots with one batch of some of `images` images that uses `size` candidates."""
        samples = torch.arange(self._n, device=self.slots.device)
        replaced = size // self._n + (samples < size % self._n)
        mask = torch.arange(4, device=samples.device) < replaced[:, None]
        rows = torch.arange(5 * self._n, device=samples.device) % images
        used = padded_candidates(mask, 3 * self._n)
        self.slots.copy_(torch.cat([rows, mask.flatten().long(), used.flatten()]))

    def _draw(self, first: int, end: int, numbers: range) -> HostCopy:
        """Fill the slots of iterations `first` to `end`, of one part of the ring; numbers are those of `first`."""
        all_numbers = range(numbers.start, _shifted(numbers, end - first).start, numbers.step)
        rows, mask = self._drawing(all_numbers)
        used = padded_candidates(mask, 3 * self._n)
        packed = torch.cat([rows.flatten(1), mask.flatten(1).long(), used.flatten(1)], 1)
        start = first % len(self.slots)
        self.slots[start : start + end - first] = packed.unflatten(0, (-1, self._batches))
        counts = self.slots.new_zeros(AHEAD)
        counts[first - end :] = mask.flatten(1).sum(1).unflatten(0, (-1, self._batches)).amax(1)
        return HostCopy(counts)


def unpacked(slot: Tensor, n: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Unpack a batch: rows (5, N), mask (N, 4) bool, and `size` used candidates (2, size)."""
    rows, mask, used = slot.split([5 * n, 4 * n, 6 * n])
    return rows.view(5, -1), mask.view(-1, 4).bool(), used.view(2, -1)[:, :size]


def _shifted(numbers: range, iterations: int) -> range:
    """Move batch numbers on by so many iterations."""
    by = iterations * len(numbers) * numbers.step
    return range(numbers.start + by, numbers.stop + by, numbers.step)
