"""The triangular system as one loop, against the loops one by one and the definition in float64."""

import re
from itertools import product
from pathlib import Path

import pytest
import torch

from lorbms_fast.kernels import dense_block_activated, dense_block_maps
from lorbms_fast.kernels._common import amx_conv, norm_relu, winograd
from lorbms_fast.kernels._common.cpp import native_loops, vectors
from lorbms_fast.kernels.dense_block import cpp, fused
from lorbms_fast.measurement.counts import count

DTYPES = (torch.float32, torch.bfloat16)
pytestmark = pytest.mark.skipif(not winograd.cpp.runs(), reason="loops need vectors and a compiler")


def inputs(n, layers, height, width, dtype):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 32, height, width, generator=generator)
    weights = [0.1 * torch.randn(16, 32 + 16 * i, 3, 3, generator=generator) for i in range(layers)]
    biases = [torch.randn(16, generator=generator) for _ in range(layers)]
    return [t.to(dtype).requires_grad_() for t in (x, *weights, *biases)]


def results(form, activation, parameters, impl="fused", wanted=lambda _: True):
    """Result, and gradients of the parameters that are wanted, by their index."""
    for i, tensor in enumerate(parameters):
        tensor.requires_grad_(wanted(i))
    x, *others = parameters
    y = form(x, others[: len(others) // 2], others[len(others) // 2 :], activation, impl=impl)
    probe = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    return [y, *torch.autograd.grad(y, [tensor for i, tensor in enumerate(parameters) if wanted(i)], probe)]


@pytest.fixture
def solved(monkeypatch):
    """The systems solved in one loop."""
    names = []
    run = cpp.LOOPS.run
    monkeypatch.setattr(cpp.LOOPS, "run", lambda name, *args: (names.append(name), run(name, *args)))
    return names


@pytest.mark.usefixtures("no_tiles")
@pytest.mark.parametrize("form", [dense_block_maps, dense_block_activated])
@pytest.mark.parametrize("activation", ["relu", "instance_norm_relu"])
def test_results_are_those_of_loops_one_by_one(form, activation, solved, monkeypatch):
    for dtype, n, layers, (height, width) in product(DTYPES, (1, 3), (2, 5, 7), ((16, 16), (21, 26))):
        parameters = inputs(n, layers, height, width, dtype)
        solved.clear()
        found = results(form, activation, parameters)
        assert solved == ["solve", "solve_transposed"]
        with monkeypatch.context() as patch:
            patch.setattr(cpp, "take", lambda *_: False)
            expected = results(form, activation, parameters)
        assert all(map(torch.equal, found, expected)), (dtype, n, layers, height, width)


@pytest.mark.parametrize("form", [dense_block_maps, dense_block_activated])
@pytest.mark.parametrize("activation", ["relu", "instance_norm_relu"])
def test_results_are_the_definitions(form, activation, solved):
    parameters = inputs(2, 6, 18, 17, torch.float32)
    exact = results(form, activation, [p.detach().double() for p in parameters], "reference")
    for found, expected in zip(results(form, activation, parameters), exact, strict=True):
        assert (found - expected).abs().max() < 1e-4 * max(1, expected.abs().max())
    assert solved == ["solve", "solve_transposed"]


@pytest.mark.parametrize("wanted", [0, 1, 6], ids=["x", "first weight", "last bias"])
def test_only_what_is_asked_for_gets_gradients(wanted):
    parameters = inputs(1, 5, 16, 16, torch.float32)
    _, expected = results(dense_block_maps, "instance_norm_relu", parameters, "reference", lambda i: i == wanted)
    _, found = results(dense_block_maps, "instance_norm_relu", parameters, wanted=lambda i: i == wanted)
    assert (found - expected).abs().max() < 1e-3 * expected.abs().max()


@pytest.mark.parametrize("moved", [(0,), (0, 1, 2, 3, 4, 5)])
def test_work_is_counted_as_that_of_loops_one_by_one(moved, monkeypatch):
    parameters = inputs(2, 5, 16, 16, torch.float32)

    def run():
        results(dense_block_maps, "instance_norm_relu", parameters, wanted=lambda i: i in moved)

    found = count(run)
    monkeypatch.setattr(cpp, "take", lambda *_: False)
    expected = count(run)
    assert found.gflop == expected.gflop
    assert found.operations < expected.operations


@pytest.mark.parametrize("amx", [False, True])
def test_bfloat16_is_solved_in_one_loop_also_beside_tiles(amx, solved, no_tiles, monkeypatch):
    monkeypatch.setattr(vectors, "has_amx", lambda: amx)
    parameters = inputs(2, 5, 16, 16, torch.bfloat16)
    exact = results(dense_block_maps, "instance_norm_relu", [p.detach().double() for p in parameters], "reference")
    for found, expected in zip(results(dense_block_maps, "instance_norm_relu", parameters), exact, strict=True):
        assert (found - expected).norm() < 0.06 * expected.norm()
    assert solved == ["solve", "solve_transposed"]


@pytest.mark.skipif(not amx_conv.runs(torch.bfloat16), reason="no AMX here")
@pytest.mark.parametrize("activation", ["relu", "instance_norm_relu"])
def test_in_tiles_results_are_as_exact_as_in_winograds_loops(activation, solved, monkeypatch):
    parameters = inputs(2, 7, 21, 26, torch.bfloat16)
    exact = results(dense_block_maps, activation, [p.detach().double() for p in parameters], "reference")
    in_tiles = results(dense_block_maps, activation, parameters)
    monkeypatch.setattr(amx_conv, "has_amx", lambda: False)
    winograds = results(dense_block_maps, activation, parameters)
    assert solved == 2 * ["solve", "solve_transposed"]
    assert not all(map(torch.equal, in_tiles, winograds))
    for found, other, expected in zip(in_tiles, winograds, exact, strict=True):
        assert (found - expected).norm() < 1.2 * (other - expected).norm()


@pytest.mark.parametrize("change", ["growth", "kernel", "small maps", "dtype", "one layer"])
def test_other_systems_go_loop_by_loop(change):
    y = torch.empty(2, 48, 16, 16).contiguous(memory_format=torch.channels_last)
    pushes = [torch.empty(16, 16, 3, 3).contiguous(memory_format=torch.channels_last) for _ in range(2)]
    assert cpp.take(pushes, y, y)
    if change == "growth":
        y, pushes = y[:, :24], [W[:8, :8].contiguous(memory_format=torch.channels_last) for W in pushes]
    elif change == "kernel":
        pushes[1] = torch.empty(16, 16, 5, 5).contiguous(memory_format=torch.channels_last)
    elif change == "small maps":
        y = y[:1, :, :1, :1]
    elif change == "dtype":
        pushes = [W.bfloat16() for W in pushes]
    else:
        pushes = []
    assert not cpp.take(pushes, y, y)


def test_loops_of_others_are_declared_as_they_are():
    """A call through another declaration would read anything."""
    text = " ".join(Path(cpp.__file__).with_name("loops.cpp").read_text().split())
    others = [
        " ".join(Path(package.__file__).with_name("loops.cpp").read_text().split())
        for package in (norm_relu, winograd, amx_conv)
    ]
    declared = re.findall(r"void \(\*(\w+)\)\((.*?)\);", text.replace("MAPS(", "MAPS["))
    assert len(declared) == 7
    defined = {
        found
        for other in others
        for found in re.findall(r"EXPORT void (\w+)\( ?(.*?) ?\) {", other.replace("MAPS(", "MAPS["))
    }
    assert set(declared) <= defined
    pushes = {name: arguments for name, arguments in declared if name.startswith("conv")}
    assert {pushes[name] for name, _ in defined if name in pushes} == {of for name, of in defined if name in pushes}


@pytest.mark.parametrize("of_weights", [torch.float32, torch.float64])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("layers", "channels", "growth", "kernel"), [(1, 3, 4, 3), (2, 1, 1, 1), (7, 32, 16, 3), (12, 5, 3, 3)]
)
def test_packing_is_copying(of_weights, dtype, layers, channels, growth, kernel):
    generator = torch.Generator().manual_seed(0)

    def drawn(dtype, *shape):
        values = torch.randn(shape, generator=generator)
        return values.to(dtype, memory_format=torch.channels_last)

    weights = [drawn(of_weights, growth, channels + i * growth, kernel, kernel) for i in range(layers)]
    probes = [drawn(dtype, *block.shape) for block in fused.pack(weights, dtype)]

    def packed(native):
        given = [weight.clone().requires_grad_() for weight in weights]
        with native_loops(native):
            made = fused.pack(given, dtype)
            assert cpp.packs(given, made) == (native and (dtype == torch.float64) == (of_weights == torch.float64))
            return [*made, *torch.autograd.grad(made, given, probes)]

    assert all(map(torch.equal, packed(True), packed(False)))
