"""Compiled regions compute the same, and are compiled while they warm up only."""

import pytest
import torch

from lorbms_fast.engine import torch_compile
from lorbms_fast.engine.implementations import IMPLS
from lorbms_fast.engine.iteration import iterate
from lorbms_fast.engine.torch_compile import compile_regions
from lorbms_fast.measurement.step import random_batch
from lorbms_fast.models import build
from lorbms_fast.optimizers import Optimizers
from tests.conftest import TINY
from tests.lorbms_fast.engine.test_iteration import double

# torch.compile looks at .grad of everything, and silences the warning by other means than warnings.
pytestmark = pytest.mark.filterwarnings(r"ignore:The \.grad attribute of a Tensor")


class Run:
    """Networks in float64, some of their regions compiled, and batches that use from 3 to 9 of 12 candidates."""

    def __init__(self, *regions):
        self.networks = build(TINY.model, "fast").double().train()
        self.graphs = compile_regions(self.networks, regions, "eager")
        self.optimizers = Optimizers.of(self.networks, TINY.optim)

    def iterate(self, i, n=3):
        batch = double(random_batch(n, 64, i))
        batch = batch._replace(mask=torch.arange(4) < 1 + (torch.arange(n)[:, None] * i) % 3)
        report = iterate(IMPLS["fast"], self.networks, self.optimizers, [batch], TINY.loss, TINY.optim)
        return report.stacked()

    def counts(self):
        return {region: graphs.count for region, graphs in self.graphs.items()}


@pytest.fixture
def both():
    torch.compiler.reset()
    yield Run(), Run("dsc", "cls")
    torch.compiler.reset()


def test_nothing_is_compiled_after_warming_up_and_all_is_the_same(both):
    plain, run = both
    for i in range(4):
        torch.testing.assert_close(run.iterate(i), plain.iterate(i), rtol=1e-9, atol=0)
        assert run.counts() == {"dsc": 2, "cls": 2}  # all of them in the first iteration
    assert list(run.networks.state_dict()) == list(plain.networks.state_dict())


def test_other_sizes_are_counted_and_no_more_than_some_compiled(both, monkeypatch, capsys):
    monkeypatch.setattr(torch_compile, "CASES", 3)
    run = Run("dsc", "cls")
    run.iterate(0)
    run.iterate(0, n=4)
    assert run.counts() == {"dsc": 4, "cls": 4}
    said = capsys.readouterr().err.splitlines()
    for region in ("dsc", "cls"):
        *compiling, others = filter(None, (line.partition(f"torch.compile: {region}, ")[2] for line in said))
        assert [line.partition(", ")[0] for line in compiling] == [f"graph {i} of at most 3" for i in (1, 2, 3)]
        assert "more than 3 cases" in others
