"""Training on labelled pictures: interrupted, and gone on."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from lorbms_fast.errors import UserError
from lorbms_fast.evaluation import supervised
from lorbms_fast.evaluation.datasets.labelled import Labelled
from lorbms_fast.evaluation.supervised import Schedule, WithLinear, train_supervised
from lorbms_fast.optimizers import Adam

CPU = torch.device("cpu")
SCHEDULE = Schedule(3, batch_size=2, side=64, lr=1e-3, seed=0)


@pytest.fixture
def data():
    pictures = np.random.Generator(np.random.Philox(0)).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    return Labelled(pictures, np.arange(6) % 2, ("a", "b"), "noise")


def train(data, schedule, state, rows=6):
    torch.manual_seed(0)
    network = WithLinear(nn.Sequential(nn.Conv2d(3, 2, 32, stride=32), nn.Flatten()), 64, 2, 0)
    return train_supervised(network, data, np.arange(rows), schedule, CPU, title="test", state=state)


def test_a_state_is_gone_on_from_by_the_same_training_alone(data, tmp_path, monkeypatch):
    state = tmp_path / "a.state"
    whole = train(data, SCHEDULE, state)
    monkeypatch.setattr(supervised, "SAVE_EVERY", 2)
    step, taken = Adam.step, []

    def dies_in_the_third(self, *arguments, **options):
        taken.append(self.param_groups[0]["lr"])
        if len(taken) == 3:
            raise KeyboardInterrupt
        step(self, *arguments, **options)

    monkeypatch.setattr(Adam, "step", dies_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        train(data, SCHEDULE, state)
    for other in (replace(SCHEDULE, iterations=1), replace(SCHEDULE, lr=0.5), replace(SCHEDULE, seed=1)):
        with pytest.raises(UserError, match=r"a\.state is the state of another training: remove it"):
            train(data, other, state)
    with pytest.raises(UserError, match="another training"):
        train(data, SCHEDULE, state, rows=5)
    assert train(data, SCHEDULE, state) == whole
    assert len(taken) == 4
    assert all(isinstance(rate, torch.Tensor) for rate in taken), "kernels read the rate where it lies"
