"""Encoder and decoder as ONNX files, checked against PyTorch; and with 8-bit weights, for pages."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

TOLERANCE = 1e-4
"""Largest difference between ONNX Runtime and PyTorch, in units of the largest number that PyTorch gives."""
SMALLEST = 256
"""Weights with fewer numbers stay float32: rounding them saves nothing."""


def write_onnx(network: nn.Module, example: Tensor, names: tuple[str, str], path: Path) -> None:
    """Write a network in evaluation mode on the CPU as an ONNX file with a batch of any size.

    The network takes one input, such as `example` of two samples or more; `names` are its input's and output's.
    """
    with _quiet():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("N", min=1)},),
            input_names=names[:1],
            output_names=names[1:],
            external_data=False,
            verbose=False,
        )
    assert program is not None  # only the older exporter writes the file itself and returns nothing
    program.save(path)


@torch.inference_mode()
def difference(network: nn.Module, path: Path, x: Tensor) -> float:
    """Largest difference between a network and its ONNX file by ONNX Runtime, relative to its largest output."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    expected = network(x)
    return float((torch.from_numpy(y) - expected).abs().max() / expected.abs().max())


def quantize(source: Path, target: Path) -> None:
    """Store every weight of a file in 8 bits with a scale for each output map; arithmetic stays float32.

    `W[o] = scale[o] * q[o]`, `scale[o] = max |W[o]| / 127`: a quarter of the size.
    """
    model = onnx.load(source)
    graph = model.graph
    large = [weight for weight in graph.initializer if _is_weight(weight)]
    for weight in large:
        q, scale = eight_bits(onnx.numpy_helper.to_array(weight))
        graph.initializer.remove(weight)
        graph.initializer.append(onnx.numpy_helper.from_array(q, f"{weight.name}.q"))
        graph.initializer.append(onnx.numpy_helper.from_array(scale, f"{weight.name}.scale"))
    restore = [
        onnx.helper.make_node("DequantizeLinear", [f"{weight.name}.q", f"{weight.name}.scale"], [weight.name], axis=0)
        for weight in large
    ]
    nodes = [*restore, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, target)


def eight_bits(W: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round (O, ...) to int8 with a scale for each of the O maps, (O,); a map of zeros has scale 1."""
    largest = np.abs(W).reshape(len(W), -1).max(1)
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return np.rint(W / scale.reshape(-1, *[1] * (W.ndim - 1))).astype(np.int8), scale


def _is_weight(tensor: onnx.TensorProto) -> bool:
    return tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 4 and np.prod(tensor.dims) >= SMALLEST


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter, which names packages it could use and its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
