"""The examples of docs/kernels.md do what the page says."""

import re
from contextlib import nullcontext, redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import pytest
import torch

from lorbms_fast.kernels import DenseBlock, use_impl
from lorbms_fast.kernels._common.dispatch import HAS_TRITON
from lorbms_fast.kernels.instance_norm import cpp

if HAS_TRITON:
    from tests.kernels.interpreter import interpreted

FOR_OTHERS, OF_LAYERS = (Path(__file__).parents[2] / "docs" / "kernels.md").read_text().split("## Forms")
FORMS = ["auto", "reference", pytest.param("triton", marks=pytest.mark.skipif(not HAS_TRITON, reason="no Triton here"))]


def snippets(text):
    return re.findall(r"```python\n(.*?)```", text, re.S)


@pytest.mark.parametrize(
    "number", range(len(snippets(FOR_OTHERS))), ids=["import", "nnU-Net", "CycleGAN", "DenseNet", "timing"]
)
def test_one_call_for_models_of_others(number):
    snippet, printed = snippets(FOR_OTHERS)[number], StringIO()
    if "dynamic_network_architectures" in snippet and find_spec("dynamic_network_architectures") is None:
        pytest.skip("dynamic-network-architectures, whose networks nnU-Net trains, is not installed")
    if not cpp.take(torch.ones(1, 1, 2, 2)):
        pytest.skip("no C++ compiler: norms stay torch's")
    torch.manual_seed(0)
    with redirect_stdout(printed):
        exec(snippet, {})
    if printed.getvalue():
        assert printed.getvalue() in FOR_OTHERS


@pytest.mark.parametrize("impl", FORMS)
def test_the_examples(impl):
    found = snippets(OF_LAYERS)
    assert len(found) == 8
    torch.manual_seed(0)
    names: dict = {}
    with interpreted(seed=0) if impl == "triton" else nullcontext(), use_impl(impl):
        exec("\n".join(found), names)
    assert isinstance(names["model"][1], DenseBlock)
