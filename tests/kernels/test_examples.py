"""The example in the docstring of each public function and layer runs."""

import doctest
import inspect
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lorbms_fast import kernels
from lorbms_fast.kernels import lorbms

PUBLIC = {name: getattr(module, name) for module in (kernels, lorbms) for name in module.__all__}
# Types that functions hand out have no example of their own.
WITH_EXAMPLES = {
    name: thing
    for name, thing in PUBLIC.items()
    if inspect.isfunction(thing) or (inspect.isclass(thing) and issubclass(thing, nn.Module))
}


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_example(name: str) -> None:
    thing: Callable[..., object] = WITH_EXAMPLES[name]
    torch.manual_seed(0)
    (test,) = doctest.DocTestFinder(recurse=False).find(thing, name, globs={**PUBLIC, "torch": torch, "nn": nn, "F": F})
    assert test.examples, f"{name} has no example"
    failures = []
    doctest.DocTestRunner().run(test, out=failures.append)
    assert not failures, "".join(failures)
