"""The examples in docstrings give what they say."""

import doctest
import importlib
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for name in ("lorbms_fast", "lorbms_fast/kernels", "lorbms_fast/dataloader")
        for path in (ROOT / name).rglob("*.py")
        if ">>> " in path.read_text()
    }
)
TAKEN_AS_IMPORTED = {"torch": torch, "nn": nn, "F": F}


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings(name):
    torch.manual_seed(0)
    result = doctest.testmod(
        importlib.import_module(name),
        extraglobs=TAKEN_AS_IMPORTED,
        optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE,
    )
    assert result.attempted > 0
    assert result.failed == 0
