"""Each public function and layer has an example in its docstring, which tests/test_doctests.py runs."""

import inspect

import pytest
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
def test_it_has_an_example(name: str) -> None:
    assert ">>> " in (WITH_EXAMPLES[name].__doc__ or "")
