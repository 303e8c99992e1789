"""Names of devices, on machines that have other GPUs than this one."""

import pytest
import torch

from lorbms_fast.devices import device_named
from lorbms_fast.engine.distributed import joined
from lorbms_fast.errors import UserError


@pytest.fixture
def gpus(monkeypatch):
    """Three GPUs; which of them became the current one."""
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: chosen.append(str(device)))
    return chosen


@pytest.mark.parametrize(
    ("name", "rank", "expected"), [("cuda:1", "0", "cuda:1"), ("cuda", "2", "cuda:2"), ("auto", "0", "cuda:0")]
)
def test_a_gpu_becomes_the_current_one(name, rank, expected, gpus, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", rank)
    assert str(device_named(name)) == expected
    assert gpus == [expected]


def test_the_cpu_leaves_gpus_alone(gpus):
    assert device_named("cpu") == torch.device("cpu")
    assert gpus == []


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("cuda:3", "torch sees 3 GPUs here: choose cuda:0 to cuda:2"),
        *((name, f"--device {name}: write cpu, cuda") for name in ("gpu", "meta", "mps", "cuda:x")),
    ],
)
def test_what_is_not_there_is_named(name, told, gpus):
    with pytest.raises(UserError, match=told):
        device_named(name)


def test_a_machine_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match="--device cuda:0: torch sees no GPUs here: use --device cpu"):
        device_named("cuda")


def test_more_processes_than_gpus_are_told(gpus, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "run")
    monkeypatch.setenv("LOCAL_RANK", "3")
    with pytest.raises(UserError, match="3 GPUs here: start 3 processes at most"), joined():
        pass
