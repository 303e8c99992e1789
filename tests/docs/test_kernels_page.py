"""The examples of docs/kernels.md do what the page says."""

import re
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from lorbms_fast.kernels import DenseBlock, use_impl
from lorbms_fast.kernels._common.dispatch import TRITON

if TRITON:
    from tests.kernels.interpreter import interpreted

PAGE = Path(__file__).parents[2] / "docs" / "kernels.md"
FORMS = ["auto", "reference", pytest.param("triton", marks=pytest.mark.skipif(not TRITON, reason="no Triton here"))]


@pytest.mark.parametrize("impl", FORMS)
def test_the_examples(impl):
    snippets = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    assert len(snippets) == 5
    torch.manual_seed(0)
    names: dict = {}
    with interpreted(seed=0) if impl == "triton" else nullcontext(), use_impl(impl):
        exec("\n".join(snippets), names)
    assert isinstance(names["model"][1], DenseBlock)
