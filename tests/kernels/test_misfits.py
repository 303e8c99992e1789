"""Tensors that do not fit are refused by every form of every function, with the same exception; no number comes out.

A shape is written in letters, one a dimension: sizes of the same letter have to agree, and digits are sizes. So a
dimension is changed where its letter stands again, or where the call ties it to another (`tied`).
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from lorbms_fast import kernels
from lorbms_fast.cpp import native_loops
from lorbms_fast.kernels import lorbms
from lorbms_fast.kernels._common.dispatch import HAS_TRITON

if HAS_TRITON:
    from tests.kernels.interpreter import interpreted

FORMS = ["reference", "fused", "loops", *(["triton"] if HAS_TRITON else [])]
SIZES = {"N": 2, "C": 16, "G": 16, "O": 16, "H": 4, "W": 4, "Q": 4, "k": 3, "+": 18, "D": 32, "E": 48}
"""`+` is C and coordinates, D is C + G, E is C + 2 G."""


class Call(NamedTuple):
    """A function of the form and of tensors, these by name in letters."""

    function: Callable[..., Any]
    shapes: dict[str, str]
    tied: str = ""
    any_dtype: str = ""
    """Tensors that may be of whole numbers."""
    any_rank: str = ""
    """Tensors that may have more dimensions, or fewer."""


def packed(impl: str, w: Tensor, v: Tensor, b: Tensor, c: Tensor) -> kernels.PackedLayers:
    return kernels.pack_layers([([w, v], [b, c])], impl=impl)[0]


def block(function: Callable[..., Any], *options: str) -> Call:
    def call(impl: str, x: Tensor, w: Tensor, v: Tensor, b: Tensor, c: Tensor) -> Any:
        return function(x, [w, v], [b, c], *options, impl=impl)

    return Call(call, {"x": "NCHW", **LAYERS}, "D")


LAYERS = {"w": "GC33", "v": "GD33", "b": "G", "c": "G"}
AFFINE = {"x": "NCHW", "w": "C", "b": "C"}
CALLS = {
    "instance_norm_act": Call(lambda i, x, w, b: kernels.instance_norm_act(x, weight=w, bias=b, impl=i), AFFINE),
    "batch_norm_act": Call(
        lambda i, x, w, b, m, v: kernels.batch_norm_act(x, "relu", None, 1e-5, w, b, m, v, impl=i),
        {**AFFINE, "m": "C", "v": "C"}, any_dtype="wbmv", any_rank="wbmv",
    ),
    "grouped_batch_norm": Call(lambda i, x, w, b: kernels.grouped_batch_norm(x, w, b, 2, impl=i), AFFINE),
    "relu_grouped_batch_norm": Call(lambda i, x, w, b: kernels.relu_grouped_batch_norm(x, w, b, 2, impl=i), AFFINE),
    "dense_block": block(kernels.dense_block),
    "dense_block with norm": block(kernels.dense_block, "instance_norm_relu"),
    "dense_block_maps": block(kernels.dense_block_maps),
    "dense_block_activated": block(kernels.dense_block_activated),
    "pack_layers": Call(packed, LAYERS, "D"),
    "dense_block, packed": Call(
        lambda i, x, *layers: kernels.dense_block(x, packed(i, *layers)), {"x": "NCHW", **LAYERS}, "D"
    ),
    "coord_conv2d": Call(
        lambda i, x, w, b: kernels.coord_conv2d(x, w, b, impl=i), {"x": "NCHW", "w": "O+33", "b": "O"}, "C+"
    ),
    "max_pool2x2": Call(lambda i, x: kernels.max_pool2x2(x, impl=i), {"x": "NCHW"}, any_dtype="x"),
    "product_conv": Call(
        lambda i, x, w, b: kernels.product_conv(x, w, b, 2, 1, impl=i), {"x": "NCHW", "w": "OCkk", "b": "O"}
    ),
    "product_conv_transposed": Call(
        lambda i, x, w, b: kernels.product_conv_transposed(x, w, b, 2, 1, impl=i), {"x": "NCHW", "w": "COkk", "b": "O"}
    ),
    "resize_conv": Call(lambda i, x, w: kernels.resize_conv(x, w, impl=i), {"x": "NCHW", "w": "OC33"}),
    "resize_conv, folded": Call(
        lambda i, x, w: kernels.resize_conv(x, kernels.fold_taps([w], impl=i)[0]), {"x": "NCHW", "w": "OC33"}
    ),
    "spectral_norm": Call(lambda i, w, u: kernels.spectral_norm(w, u), {"w": "OCkk", "u": "1O"}, any_rank="w"),
    "spectral_norm_through": Call(
        lambda i, w, u: kernels.spectral_norm_through(w, u), {"w": "OCkk", "u": "1O"}, any_rank="w"
    ),
    "spectral_norm_all": Call(
        lambda i, w, u: kernels.spectral_norm_all([w], [u], impl=i), {"w": "OCkk", "u": "1O"}, any_rank="w"
    ),
    "advance_u": Call(lambda i, w, u: kernels.advance_u([w], [u], impl=i), {"w": "OCkk", "u": "1O"}, any_rank="w"),
    "upsample_conv": Call(
        lambda i, x, w, b: kernels.upsample_conv(x, w, b, impl=i), {"x": "NCHW", "w": "OC33", "b": "O"}
    ),
    "winograd_conv": Call(
        lambda i, x, w, b: kernels.winograd_conv(x, w, b, 1, impl=i), {"x": "NCHW", "w": "OCkk", "b": "O"}
    ),
    "linear": Call(  # torch's own takes a bias of one value
        lambda i, x, w: lorbms.linear(x, w, torch.ones(16), impl=i), {"x": "NC", "w": "OC"}, "O", any_rank="x"
    ),
    "output_conv2d": Call(
        lambda i, x, y, w, b: lorbms.output_conv2d(x, y, w, b, impl=i),
        {"x": "NCHW", "y": "NGHW", "w": "OD11", "b": "O"}, "CGD",
    ),
    "pooled_conv2d": Call(
        lambda i, x, w, b: lorbms.pooled_conv2d(x, w, b, impl=i), {"x": "NCHW", "w": "OC11", "b": "O"}
    ),
    "paired_conv2d": Call(
        lambda i, x, y, w, b: lorbms.paired_conv2d(x, y, w, b, impl=i),
        {"x": "NCHW", "y": "QGHW", "w": "ODkk", "b": "O"}, "CGD", any_dtype="xy",
    ),
    "dense_block_pooled": Call(
        lambda i, x, p, q, *layers: lorbms.dense_block_pooled(x, packed(i, *layers), p, q),
        {"x": "NCHW", "p": "OE11", "q": "O", **LAYERS}, "DE",
    ),
    "mix_chunks": Call(
        lambda i, x, y, mask: lorbms.mix_chunks(x, y, mask, impl=i), {"x": "NQC", "y": "NQC", "mask": "NQ"},
        any_dtype="xy",
    ),
    "mix_used": Call(
        lambda i, x, mask: lorbms.mix_used(x, mask, impl=i), {"x": "GQC", "mask": "NQ"}, any_dtype="x"
    ),
    "loss_head": Call(
        lambda i, a, b, c, l, mask: lorbms.loss_head(a, b, c, a, l, mask, (1, 1, 1), (1,) * 4, impl=i),
        {"a": "N3HW", "b": "N3HW", "c": "N3HW", "l": "QNQ", "mask": "NQ"}, any_dtype="abcl", any_rank="abc",
    ),
    "classification_loss": Call(
        lambda i, l, mask: lorbms.classification_loss(l, mask, (1,) * 4, impl=i), {"l": "QNQ", "mask": "NQ"}
    ),
    "step_size": Call(
        lambda i, a, b, t, f, r, g: lorbms.step_size(a, b, t, f, r, g, (0.9, 0.999), impl=i),
        {"a": "", "b": "", "t": "", "f": "2", "r": "", "g": ""}, any_dtype="ab",
    ),
    "assemble_batch": Call(
        lambda i, s, r: lorbms.assemble_batch(s, r, impl=i), {"s": "GHW3", "r": "NQ"}, any_rank="r", any_dtype="r"
    ),
}  # fmt: skip
OF_THE_KIND = {"mask": torch.bool, "s": torch.uint8, "r": torch.int64}


def tensors(name: str) -> dict[str, Tensor]:
    torch.manual_seed(0)
    made = {}
    for letter, shape in CALLS[name].shapes.items():
        tensor = torch.rand([SIZES.get(of, 0) or int(of) for of in shape]) + 0.5
        doubles = name == "step_size" and letter in "trg"
        made[letter] = tensor.double() if doubles else tensor.to(OF_THE_KIND.get(letter, torch.float32))
    return made


def misfits(name: str) -> Iterator[tuple[str, dict[str, Tensor]]]:
    call, fitting = CALLS[name], tensors(name)
    counts = Counter("".join("".join(set(shape)) for shape in call.shapes.values()))
    for letter, shape in call.shapes.items():
        t = fitting[letter]
        for i, of in enumerate(shape):
            if of.isdigit() or counts[of] > 1 or of in call.tied:
                for size in {1, t.shape[i] - 1, t.shape[i] + 1} - {t.shape[i]}:
                    other = t.new_ones([*t.shape[:i], size, *t.shape[i + 1 :]])
                    yield f"{letter} {tuple(other.shape)}", fitting | {letter: other}
        if letter not in call.any_rank:
            for other in (t[None], *([t[0]] if shape else [])):
                yield f"{letter} {tuple(other.shape)}", fitting | {letter: other}
        if letter not in call.any_dtype:
            yield f"{letter} of whole numbers", fitting | {letter: t.to(torch.int16)}


def outcome(name: str, form: str, arguments: dict[str, Tensor]) -> str:
    """The exception, by its type's name, or what came out; an error of the interpreter's is one, too."""
    with ExitStack() as stack:
        stack.enter_context(native_loops(form == "loops"))
        if form == "triton":
            stack.enter_context(interpreted(seed=0))
        try:
            CALLS[name].function("fused" if form == "loops" else form, *arguments.values())
        except (ValueError, RuntimeError, NotImplementedError) as error:
            return type(error).__name__
        return "a number"


@pytest.mark.parametrize("name", CALLS)
def test_every_form_refuses_alike_what_does_not_fit(name):
    assert {outcome(name, form, tensors(name)) for form in FORMS} == {"a number"}
    wrong = []
    for what, arguments in misfits(name):
        found = {form: outcome(name, form, {k: t.clone() for k, t in arguments.items()}) for form in FORMS}
        of_dtype = what.endswith("numbers")  # where `impl` may be refused first
        if "a number" in found.values() or (len({*found.values()}) > 1 and not of_dtype):
            wrong.append((what, found))
    assert not wrong


@pytest.mark.parametrize("impl", ["reference", "fused"])
@pytest.mark.parametrize("at", [0, 1])
def test_biases_elsewhere_are_refused(at, impl):
    fitting = tensors("dense_block")
    fitting["bc"[at]] = fitting["bc"[at]].to("meta")
    with pytest.raises((ValueError, RuntimeError), match="expected"):
        CALLS["dense_block"].function(impl, *fitting.values())


LAYERS_OF = {
    "BatchNormAct2d": (lambda: kernels.BatchNormAct2d(16), "NCHW"),
    "CoordConv2d": (lambda: kernels.CoordConv2d(16, 8), "NCHW"),
    "DenseBlock": (lambda: kernels.DenseBlock(16, 2, 16), "NCHW"),
    "DenseNetBlock": (lambda: kernels.DenseNetBlock(2, 16, 1, 16), "NCHW"),
    "GroupedBatchNorm2d": (lambda: kernels.GroupedBatchNorm2d(16), "NCHW"),
    "GroupedBatchNorm2d, rectified": (lambda: kernels.GroupedBatchNorm2d(16, relu_first=True), "NCHW"),
    "InstanceNorm2d": (lambda: kernels.InstanceNorm2d(16, affine=True), "NCHW"),
    "InstanceNormAct2d": (lambda: kernels.InstanceNormAct2d(16, affine=True), "NCHW"),
    "InstanceNormAct": (lambda: kernels.InstanceNormAct(16, affine=True), "NCHW"),
    "ProductConv2d": (lambda: kernels.ProductConv2d(16, 16, 3), "NCHW"),
    "ProductConvTranspose2d": (lambda: kernels.ProductConvTranspose2d(16, 16, 3), "NCHW"),
    "ResizeConv2d": (lambda: kernels.ResizeConv2d(16, 8), "NCHW"),
    "SpectralConv2d": (lambda: kernels.SpectralConv2d(16, 8, 3), "NCHW"),
    "UpsampleConv2d": (lambda: kernels.UpsampleConv2d(16, 8), "NCHW"),
    "WinogradConv2d": (lambda: kernels.WinogradConv2d(16, 16, 3), "NCHW"),
    "Linear": (lambda: lorbms.Linear(16, 8), "NC"),
}


@pytest.mark.parametrize("name", LAYERS_OF)
def test_every_form_of_a_layer_refuses_maps_that_do_not_fit(name):
    make, shape = LAYERS_OF[name]
    layer, sizes = make(), [SIZES[of] for of in shape]
    for channels in (1, 15, 17):
        for form in ("reference", "fused", "auto"):
            x = torch.ones([sizes[0], channels, *sizes[2:]])
            with kernels.use_impl(form), pytest.raises((ValueError, RuntimeError)):
                layer(x)


@pytest.mark.parametrize(
    "name",
    ["CoordConv2d", "DenseBlock", "GroupedBatchNorm2d, rectified", "ResizeConv2d", "SpectralConv2d", "UpsampleConv2d"],
)
def test_tracing_warns_of_no_size_that_is_compared(name):
    x = torch.randn(2, 16, 4, 4)
    layer = LAYERS_OF[name][0]()
    torch.testing.assert_close(torch.jit.trace(layer, x)(2 * x), layer(2 * x), rtol=1e-4, atol=1e-4)
