"""Branches: who waits for whom, and that neither reads what the other makes."""

from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lorbms_fast.engine import branches, fast
from lorbms_fast.engine.branches import concurrently
from lorbms_fast.engine.fast import Fast
from lorbms_fast.measurement.branches import Branches
from lorbms_fast.measurement.step import random_batch
from lorbms_fast.models import build
from lorbms_fast.optimizers import frozen
from tests.conftest import TINY

GPU = torch.device("cuda", 0)


class Stream:
    """Knows what is done before that which is put into it next."""

    def __init__(self, device):
        self.device, self.done = device, set()

    def wait_stream(self, other):
        self.done |= other.done


@pytest.fixture
def streams(monkeypatch):
    """Streams in torch's place; the first is the current one."""
    made = [Stream(GPU)]
    current = [made[0]]

    def another(device):
        # torch hands out a few in turn: the first may be the current one
        made.append(Stream(device))
        return current[0] if len(made) == 2 else made[-1]

    @contextmanager
    def entered(stream):
        current.append(stream)
        yield
        current.pop()

    monkeypatch.setattr(branches.torch.cuda, "current_stream", lambda device: current[-1])
    monkeypatch.setattr(branches.torch.cuda, "Stream", another)
    monkeypatch.setattr(branches.torch.cuda, "stream", entered)
    yield SimpleNamespace(current=current, made=made)
    branches._beside.cache_clear()


def test_each_branch_waits_for_what_came_before_and_what_follows_for_both(streams):
    seen = {}

    def work(name):
        seen[name] = streams.current[-1], set(streams.current[-1].done)
        streams.current[-1].done.add(name)
        return name

    for turn in "12":
        work("before" + turn)
        here, aside = "here" + turn, "aside" + turn
        assert concurrently(partial(work, here), partial(work, aside), GPU) == (here, aside)
        work("after" + turn)
    assert seen["here1"][0] is streams.made[0] is not seen["aside1"][0]
    assert seen["aside1"][0] is seen["aside2"][0]  # one stream, so that a graph's sizes share memory
    assert seen["here1"][1] == seen["aside1"][1] == {"before1"}
    assert seen["after1"][1] == {"before1", "here1", "aside1"}
    assert seen["here2"][1] == seen["aside2"][1] == {"before1", "here1", "aside1", "after1", "before2"}
    assert {"here2", "aside2"} <= seen["after2"][1]


def test_branches_join_where_one_fails(streams):
    def fail():
        streams.current[-1].done.add("begun")
        raise torch.OutOfMemoryError("full")

    with pytest.raises(torch.OutOfMemoryError):
        concurrently(lambda: None, fail, GPU)
    assert streams.made[0].done == {"begun"}


def test_the_branches_of_an_update_read_nothing_of_each_other(monkeypatch):
    def losses_and_gradients():
        networks, batch = build(TINY.model, "fast").double(), random_batch(3, TINY.model.image_size)
        batch = batch._replace(I_ref=batch.I_ref.double(), I_q=batch.I_q.double())
        with frozen(networks.dsc, networks.cls):
            losses, _ = Fast().generator_losses(networks, batch, TINY.loss)
            losses.L_G.backward()
        moved = [parameter.grad for parameter in networks.generator]
        return [losses.L_G.detach(), *moved, *networks.buffers()]

    in_order = losses_and_gradients()
    calls = []

    def other_way_round(here, aside, device):
        calls.append(device)
        second = aside()
        return here(), second

    monkeypatch.setattr(fast, "concurrently", other_way_round)
    torch.testing.assert_close(losses_and_gradients(), in_order)
    assert calls == [torch.device("cpu")]


class Readers(TorchDispatchMode):
    """Memory that a branch read though another took it: a stream gives it out again without waiting for other readers.

    Gradients that pass from one branch's node to the other's are autograd's, which has the allocator wait for both.
    """

    def __init__(self, branch):
        super().__init__()
        self.branch, self.backward, self.judged = branch, False, False
        self.taken, self.borrowed = {}, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        results = func(*args, **(kwargs or {}))
        branch = self.branch()
        aside = branch is not None and branch.aside
        self.judged |= aside and self.backward
        for memory in map(memory_of, tensors_of((args, kwargs))):
            by, in_backward = self.taken.get(memory, (False, False))
            # What the judging made may be read until its own backward begins, which waits for who came before.
            if by != aside and not in_backward and (aside or self.judged):
                self.borrowed.append((memory, func, branch))
        for memory in map(memory_of, tensors_of(results)):
            self.taken.setdefault(memory, (aside, self.backward))
        return results

    def given_back(self):
        return [(func, branch) for memory, func, branch in self.borrowed if memory.expired()]


def tensors_of(tree):
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def memory_of(tensor):
    return StorageWeakRef(tensor.untyped_storage())


@pytest.mark.parametrize("wrong", [False, True])
def test_memory_that_the_other_branch_reads_is_kept_until_both_have_joined(wrong, monkeypatch):
    networks, batch = build(TINY.model, "fast"), random_batch(3, TINY.model.image_size)
    told_apart = Branches()
    if wrong:
        passing, right = [torch.tensor(0.5)], fast.discriminate
        monkeypatch.setattr(fast, "discriminate", lambda networks, images: right(networks, images * passing.pop()))
    with told_apart.told_apart(), Readers(told_apart) as readers, frozen(networks.dsc, networks.cls):
        losses, scenes = Fast().generator_losses(networks, batch, TINY.loss)
        assert not readers.given_back()
        readers.backward = True
        losses.L_G.backward()
        assert bool(readers.given_back()) == wrong, readers.given_back()
        assert scenes.I_mix is not None  # kept by the caller, as in training
    assert readers.borrowed
