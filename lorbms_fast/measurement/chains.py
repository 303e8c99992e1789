"""The longest chain of dependent steps in one program of a launch: what no number of multiprocessors shortens.

Counted from the loops of the kernels, by their arguments. Where nothing is said here, a program loads once, computes
and stores.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from lorbms_fast.measurement.launches import Launch
from lorbms_fast.measurement.work import arithmetic

CYCLES_TO_L2 = 265
"""From asking the second-level cache for a value to having it."""
CYCLES_TO_MEMORY = 480
"""And memory. Both by Luo et al., Benchmarking and Dissecting the Nvidia Hopper GPU Architecture (2024), who find
nearly the same on A100, RTX 4090 and H100."""
CYCLES_OF_A_STEP = (150, 250)
"""Addresses, a product of few numbers and a barrier, without the loads: assumed, at least and at most."""
ADDRESSED = 341
"""Bytes a cycle that four schedulers work addresses and masks out for: six instructions for 16 bytes of each of 32
lanes, assumed."""
BYTES_A_CYCLE = 128
"""That go into or come out of a multiprocessor's shared memory (CUDA C++ Programming Guide: 32 banks of four bytes)."""


@dataclass(frozen=True)
class Loops:
    """Steps and loads that one program does in turn."""

    steps: int = 0
    """Number of matrix products, each with loads that may go out `stages - 1` steps ahead."""
    loads: int = 0
    """Loads in turn that nothing has asked for ahead."""
    tile: int = 0
    """Bytes of a step's factors, which go into shared memory and come out of it."""
    programs: int = 1
    """Number of programs that do it."""

    @property
    def traffic(self) -> float:
        """Cycles of a step in which shared memory is busy."""
        return 2 * self.tile / BYTES_A_CYCLE

    @property
    def addresses(self) -> float:
        """Cycles of a step in which its addresses are worked out, nothing else going on meanwhile."""
        return self.tile / ADDRESSED

    def cycles(self, stages: int) -> tuple[float, float]:
        """At least, where loads go out ahead and hit the second-level cache; at most, where neither helps."""
        least, most = CYCLES_OF_A_STEP
        ahead = max(least, self.traffic, CYCLES_TO_L2 / (stages - 1)) if stages > 1 else least + CYCLES_TO_L2
        return (
            self.steps * ahead + self.loads * CYCLES_TO_L2,
            self.steps * (most + CYCLES_TO_L2 + self.traffic + self.addresses) + self.loads * (CYCLES_TO_MEMORY + most),
        )


@dataclass(frozen=True)
class Chain:
    """The chains of a launch's programs."""

    kinds: tuple[Loops, ...] = ()
    """Programs that may run at the same time, as far as there is room."""
    last: Loops = Loops()
    """Steps that the last of some programs goes on to do alone."""
    stages: int = 3

    def cycles(self, multiprocessors: int, resident: int) -> tuple[float, float]:
        """At least and at most, where each multiprocessor holds so many programs, and a next when one is done."""
        room = multiprocessors * resident
        busy = sum(kind.programs * kind.steps * kind.traffic for kind in self.kinds) / multiprocessors
        bounds = []
        for end in (0, 1):
            each = [(kind.programs, kind.cycles(self.stages)[end]) for kind in self.kinds]
            longest = max((cycles for _, cycles in each), default=0.0)
            shared = max(busy, sum(programs * cycles for programs, cycles in each) / room)
            crowded = sum(programs for programs, _ in each) > room
            # The longest may come first, or (Graham, 1966) start when all others are done.
            taken = max(longest, shared) if end == 0 or not crowded else shared + longest
            bounds.append(taken + self.last.cycles(self.stages)[end])
        return bounds[0], bounds[1]


def chain(launch: Launch) -> Chain:
    """Find the chains of a launch."""
    item = 4 if arithmetic(launch) == "fp32" else 2
    loops, last = _LOOPS.get(launch.name, _once)(launch.arguments | {"item": item})
    kinds = loops if isinstance(loops, tuple) else (replace(loops, programs=launch.programs),)
    return Chain(kinds, last, launch.options.get("num_stages", 3))


def shared_bytes(found: Chain) -> int:
    """Shared memory that a program of a launch takes: the factors of all steps that are ahead."""
    return max((kind.tile for kind in (*found.kinds, found.last)), default=0) * max(1, found.stages - 1)


Found = tuple[Loops | tuple[Loops, ...], Loops]
"""Of all programs, or of their kinds; and of the last."""
_NOTHING = Loops()


def _tile(a: dict[str, Any], rows: str, columns: str, inner: str) -> int:
    """Bytes of (rows, inner) and (inner, columns)."""
    return int((a[rows] + a[columns]) * a[inner] * a["item"])


def _blocks(size: int, block: int) -> int:
    return -(-size // block)


def _steps(a: dict[str, Any], channels: int, inner: str) -> int:
    """Steps of a product over all taps of so many channels, 16 at a time."""
    return _blocks(16 * _blocks(channels, 16) * a["KERNEL"] ** 2, a[inner])


def _in_flight(loads: int) -> int:
    """Loads that do not depend on each other, of which the compiler lets four go out at once."""
    return 1 + _blocks(loads, 4)


def _once(a: dict[str, Any]) -> Found:
    return Loops(loads=2), _NOTHING


def _convolve(a: dict[str, Any]) -> Found:
    every = Loops(_steps(a, a["C"], "BLOCK_K"), 1, _tile(a, "BLOCK_M", "BLOCK_N", "BLOCK_K"))
    if not a["NORM"]:
        return every, _NOTHING
    if a["SPLIT"]:  # an image's last program goes on to the first layer's activation
        return every, _alone(a)
    then, _ = _solve(a | {"first": 0, "last": a["MAPS"] // a["G"]})
    assert isinstance(then, Loops)
    return every, then


def _solve(a: dict[str, Any]) -> Found:
    """Forward and back: a layer reads all before (after) it, then is stored, and with a norm gone through again."""
    positions, layers = a["H"] * a["W"], a["MAPS"] // a["G"]
    tiles = 1 if a["SPLIT"] else _blocks(positions, a["TILE_M"])
    steps, loads = 0, 0
    for layer in range(a["first"], a["last"]):
        reads = a["G"] * (layers - 1 - layer if "grad_y" in a else layer)
        steps += tiles * _steps(a, reads, "TILE_K")
        loads += tiles + (tiles if a["NORM"] and not a["SPLIT"] else 0)
    every = Loops(steps, loads, _tile(a, "TILE_M", "TILE_G", "TILE_K"))
    return every, _alone(a) if a["NORM"] and a["SPLIT"] else _NOTHING


def _alone(a: dict[str, Any]) -> Loops:
    """An image's last program takes a layer through the norm: statistics, then the maps, in blocks of some tiles."""
    block = (2 if "grad_y" in a else 4) * a["TILE_M"]
    return Loops(loads=2 * _blocks(a["H"] * a["W"], block if a["H"] * a["W"] >= block else a["TILE_M"]))


def _gradients(a: dict[str, Any]) -> Found:
    tiles = _tile(a, "BLOCK_M", "BLOCK_X", "BLOCK_K"), _tile(a, "BLOCK_C", "BLOCK_N", "BLOCK_Q")
    of_x = Loops(_steps(a, a["MAPS"], "BLOCK_K"), 1, tiles[0], a["of_x"])
    of_weights = Loops(_blocks(a["part"], a["BLOCK_Q"]), 1, tiles[1], a["parts"] * a["of_parameters"])
    then = 2 * _blocks(a["H"] * a["W"], a["BLOCK_M"]) if a["of_x"] and a["grad_a0"] is not None else 0
    return (of_x, of_weights), Loops(loads=max(then, _in_flight(a["parts"]) if a["parts"] > 1 else 0))


def _activate(a: dict[str, Any]) -> Found:
    return Loops(loads=2 * _blocks(a["positions"], a["BLOCK_M"])), _NOTHING


def _pooled(a: dict[str, Any]) -> Found:
    return Loops(_blocks(a["C"], a["BLOCK_K"]), 1, _tile(a, "BLOCK_M", "BLOCK_N", "BLOCK_K")), _NOTHING


def _pooled_gradients(a: dict[str, Any]) -> Found:
    rows = 4 * a["N"] * _blocks(a["H"], 2) * _blocks(a["W"], 2)
    parts = _blocks(rows, a["rows_per_part"]) if a["partial"].bytes else 0
    of_part = _blocks(a["O"], a["BLOCK_O"]) * _blocks(a["C"], a["BLOCK_C"])
    tiles = _tile(a, "BLOCK_M", "BLOCK_C", "BLOCK_K"), _tile(a, "BLOCK_C", "BLOCK_O", "BLOCK_Q")
    of_x = Loops(_blocks(a["O"], a["BLOCK_K"]), 1, tiles[0], a["of_x"])
    return (of_x, Loops(_blocks(a["rows_per_part"], a["BLOCK_Q"]), 1, tiles[1], parts * of_part)), _NOTHING


def _resize(a: dict[str, Any]) -> Found:
    # Nine products, of four places and as many folded taps.
    tile = _tile(a, "BLOCK_M", "BLOCK_O", "BLOCK_C")
    return Loops(4 * _blocks(a["C"], a["BLOCK_C"]), 1, 2 * tile), _NOTHING


def _resize_gradients(a: dict[str, Any]) -> Found:
    blocks = _blocks(a["positions"], a["BLOCK_M"]), _blocks(a["C"], a["BLOCK_C"]), _blocks(a["O"], a["BLOCK_O"])
    tiles = _tile(a, "BLOCK_M", "BLOCK_C", "BLOCK_O"), _tile(a, "BLOCK_C", "BLOCK_O", "BLOCK_M")
    of_x = Loops(9 * blocks[2], 1, tiles[0], blocks[0] * blocks[1] * a["of_x"])
    steps = _blocks(a["positions_per_part"], a["BLOCK_M"])
    of_taps = Loops(steps, 1, tiles[1], 9 * a["parts"] * blocks[1] * blocks[2])
    return (of_x, of_taps), _NOTHING


def _output(a: dict[str, Any]) -> Found:
    return Loops(_blocks(a["C"] + a["D"], a["BLOCK_K"]), 1, _tile(a, "BLOCK_M", "BLOCK_O", "BLOCK_K")), _NOTHING


def _output_gradients(a: dict[str, Any]) -> Found:
    return Loops(a["tiles_per_part"], 1, _tile(a, "BLOCK_C", "BLOCK_O", "BLOCK_M")), _NOTHING


def _parts(a: dict[str, Any]) -> Found:
    return Loops(loads=1 + _in_flight(a["parts"])), _NOTHING


def _part(a: dict[str, Any]) -> Found:
    return Loops(loads=1 + _in_flight(_blocks(a["positions_per_part"], a["BLOCK_Q"]))), _NOTHING


_LOOPS: dict[str, Callable[[dict[str, Any]], Found]] = {
    "dense_block.activate": _activate,
    "dense_block.convolve": _convolve,
    "dense_block.solve": _solve,
    "dense_block.solve_transposed": _solve,
    "dense_block.gradients": _gradients,
    "pooled_conv.forward": _pooled,
    "pooled_conv.gradients": _pooled_gradients,
    "resize_conv.forward": _resize,
    "resize_conv.gradients": _resize_gradients,
    "output_conv.forward": _output,
    "output_conv.gradients": _output_gradients,
    "partial_sums.add_kernel": _parts,
    "normalization.partial_statistics": _part,
    "normalization.partial_gradient_sums": _part,
    "normalization.normalize_by_parts": _parts,
    "normalization.backward_by_parts": _parts,
}
