"""The iteration on fixed memory, played from a tape that freezes what a CUDA graph would, against the ordinary one."""

from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from bench.gpu.tape import Tape
from lorbms_fast.dataloader.readers import ResidentReader
from lorbms_fast.engine.cuda_graph import CapturedIteration, CudaGraphs
from lorbms_fast.engine.implementations import IMPLS
from lorbms_fast.engine.iteration import iterate
from lorbms_fast.errors import UserError
from lorbms_fast.measurement.step import random_batch
from lorbms_fast.models import build
from lorbms_fast.optimizers import Adam, Optimizers, undone
from lorbms_fast.training.setup import batch_source
from lorbms_fast.types import Batch
from tests.conftest import TINY

CPU = torch.device("cpu")
# The rate falls every third iteration, so that a frozen one shows at once.
CONFIG = replace(TINY, optim=replace(TINY.optim, classifier_decay_every=3, classifier_decay=0.5, generator_lr=1e-3))


class Trained:
    """Networks and optimizers, and one way to iterate."""

    def __init__(self, config, arithmetic, dtype=torch.float64):
        self.config, self.arithmetic = config, arithmetic
        self.networks = build(config.model, "fast").to(dtype).train()
        self.optimizers = Optimizers.of(self.networks, config.optim, arithmetic)
        self.counters = []

    def state(self):
        """Everything that an iteration changes."""
        tensors = [*self.networks.state_dict().values(), *self.counters]
        for optimizer in vars(self.optimizers).values():
            tensors += [optimizer.t, *(m for state in optimizer.state.values() for m in state.values())]
            if optimizer.scaler.is_enabled():
                tensors += [optimizer.scaler._scale, optimizer.scaler._growth_tracker]
        return tensors

    def captured(self, store, recorder):
        captured = CapturedIteration(
            self.networks, self.optimizers, ResidentReader.of(store, CPU).images,
            batch_source(self.config, store).drawing(CPU), self.config, self.arithmetic, recorder,
        )  # fmt: skip
        self.counters.append(captured.number)
        return captured

    def ordinary(self, iteration, batches):
        self.optimizers.set_rates(self.config.optim, iteration)
        dtype = next(self.networks.parameters()).dtype
        batches = [Batch(b.I_ref.to(dtype), b.I_q.to(dtype), b.mask) for b in batches]
        return iterate(
            IMPLS["fast"],
            self.networks,
            self.optimizers,
            batches,
            self.config.loss,
            self.config.optim,
            self.arithmetic,
        )


def numbers_of(iteration, fresh=False):
    return range(4 * iteration, 4 * iteration + 4) if fresh else range(iteration, iteration + 1)


@pytest.mark.parametrize(
    ("fresh", "arithmetic", "rtol"),
    [
        (False, "float32", 1e-9),
        pytest.param(True, "float32", 1e-9, marks=pytest.mark.slow),
        pytest.param(False, "bfloat16", 0.05, marks=pytest.mark.slow),
        pytest.param(False, "float16", 0.02, marks=pytest.mark.slow),
    ],
)
def test_every_replay_is_the_uncaptured_iteration(fresh, arithmetic, rtol, store):
    config = replace(CONFIG, optim=replace(CONFIG.optim, batches="fresh" if fresh else "one"))
    dtype = torch.float64 if arithmetic == "float32" else torch.float32
    source = batch_source(config, store)
    plain, played = Trained(config, arithmetic, dtype), Trained(config, arithmetic, dtype)
    tape = Tape(played.state)
    captured = played.captured(store, tape)
    iterations = 14 if arithmetic == "float32" else 9
    for i in range(iterations):
        expected = plain.ordinary(i, [source.batch(number) for number in numbers_of(i, fresh)])
        found = captured(i, numbers_of(i, fresh))
        torch.testing.assert_close(found.stacked(), expected.stacked(), rtol=rtol, atol=0)
    assert tape.warmed == len(captured.sizes)  # all before the first iteration, which they did not change
    assert tape.replayed == iterations
    assert tape.recorded <= len(captured.sizes)
    for optimizer, other in zip(vars(played.optimizers).values(), vars(plain.optimizers).values(), strict=True):
        assert optimizer.t == other.t
    if arithmetic == "float32":
        other = plain.networks.state_dict()
        for name, tensor in played.networks.state_dict().items():
            if not (name.startswith("enc.") and name.endswith(".bias")):  # gradient 0 under a norm: steps of noise
                assert (tensor - other[name]).norm() <= 1e-9 * max(other[name].norm(), 1e-2), name


def test_without_a_recorder_it_is_the_ordinary_iteration(store):
    source = batch_source(CONFIG, store)
    plain, static = Trained(CONFIG, "float32"), Trained(CONFIG, "float32")
    captured = static.captured(store, None)
    for i in range(3):
        expected = plain.ordinary(i, [source.batch(i)]).stacked()
        torch.testing.assert_close(captured(i, numbers_of(i)).stacked(), expected, rtol=1e-9, atol=0)


class FrozenRate(Adam):
    """Adam whose rate comes from the host: what a graph silently gets wrong."""

    @torch.no_grad()
    def step(self, closure=None):
        lr = self.param_groups[0]["lr"]
        self.param_groups[0]["lr"] = torch.full((), self.host_rate, dtype=torch.float64)
        super().step()
        self.param_groups[0]["lr"] = lr


def test_the_tape_freezes_host_numbers_as_a_graph_does():
    x = torch.nn.Parameter(torch.ones(1))
    optimizer = FrozenRate([x], 0.1, (0.5, 0.999))
    optimizer.host_rate = 0.1

    def work():
        (x * 2).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    replay = Tape(lambda: [x, optimizer.t, *optimizer.state[x].values()]).record(work)
    assert x.item() == 1.0  # recording does nothing
    optimizer.host_rate = 0.0
    replay()
    assert x.item() == pytest.approx(0.9)  # and the new rate never came through


class Refuses:
    """A recorder on a driver that cannot warm up, or not capture, after it did so for `after` sizes."""

    def __init__(self, tape, stage, after, networks):
        self._tape, self._stage, self._after, self._networks = tape, stage, after, networks

    def warm_up(self, work):
        self._fail("warmed up")
        self._tape.warm_up(work)

    def record(self, work):
        self._fail("captured")
        return self._tape.record(work)

    def _fail(self, stage):
        if stage != self._stage:
            return
        if self._after:
            self._after -= 1
            return
        (self._networks.generator[0] * torch.inf).sum().backward()  # half an update was noted
        try:
            raise RuntimeError("out of shared memory\nmore")
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")


@pytest.mark.parametrize(("stage", "after"), [("warmed up", 0), ("captured", 0), ("captured", 1)])
def test_a_capture_that_fails_says_so_and_goes_on(stage, after, store, capsys):
    source = batch_source(CONFIG, store)
    plain, played = Trained(CONFIG, "float32"), Trained(CONFIG, "float32")
    recorder = Refuses(Tape(played.state), stage, after, played.networks)
    captured = played.captured(store, recorder)
    for i in range(4):  # the rate falls before the last
        expected = plain.ordinary(i, [source.batch(i)]).stacked()
        torch.testing.assert_close(captured(i, numbers_of(i)).stacked(), expected, rtol=1e-9, atol=0)
    said = capsys.readouterr().out
    assert said.count(f" candidates cannot be {stage} (RuntimeError: out of shared memory): training goes on with") == 1
    assert "more" not in said
    assert not captured.graphs


class RecordsNothing(Tape):
    """A recorder on another device's stream."""

    def record(self, work):
        super().record(work)
        return lambda: None


def test_a_graph_that_does_nothing_ends_the_training(store):
    trained = Trained(CONFIG, "float32")
    captured = trained.captured(store, RecordsNothing(trained.state))
    told = r"the CUDA graph of \d+ candidates does nothing on cpu: iteration \d+ still has number \d+; .* --graphs off"

    def train():
        for i in range(9):
            captured(i, numbers_of(i))

    with pytest.raises(UserError, match=told):
        train()


class FakeCuda:
    """The part of torch.cuda that records graphs, on a machine with two GPUs; the end of every capture fails."""

    def __init__(self, monkeypatch):
        self.device_index, self.allocating = 0, None
        self.defaults = {0: self._stream_on(0), 1: self._stream_on(1)}
        self.streams = dict(self.defaults)
        for name in ("device", "current_stream", "stream", "Stream", "graph_pool_handle", "graph", "CUDAGraph"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))
        self.emptied, self.waited, self.generator_state = 0, [], "capturing"
        copied = {"clone_state": lambda: "copied", "graphsafe_set_state": partial(setattr, self, "generator_state")}
        monkeypatch.setattr(torch.cuda, "default_generators", (None, SimpleNamespace(**copied)))
        monkeypatch.setattr(torch.cuda, "empty_cache", self._empty_cache)
        for name in ("_cuda_endAllocateToPool", "_cuda_releasePool"):
            monkeypatch.setattr(torch._C, name, getattr(self, name), raising=False)

    CUDAGraph = object

    @contextmanager
    def device(self, device):
        before, self.device_index = self.device_index, device.index
        try:
            yield
        finally:
            self.device_index = before

    def current_stream(self):
        return self.streams[self.device_index]

    def Stream(self):
        return self._stream_on(self.device_index)

    def _stream_on(self, index):
        stream = SimpleNamespace(device=index)
        stream.wait_stream = lambda other: self.waited.append((stream, other))
        return stream

    def _empty_cache(self):
        self.emptied += 1

    def graph_pool_handle(self):
        return "pool", self.device_index

    @contextmanager
    def stream(self, stream):
        before, self.streams[stream.device] = self.streams[stream.device], stream
        try:
            yield
        finally:
            self.streams[stream.device] = before

    @contextmanager
    def graph(self, graph, pool, stream, capture_error_mode):
        assert (pool, stream.device, self.device_index) == (("pool", 1), 1, 1)
        self.streams[1], self.allocating = stream, pool  # and leaves them so, as torch does
        try:
            yield
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")

    def _cuda_endAllocateToPool(self, index, pool):
        assert (index, self.allocating) == (1, pool)
        self.allocating = "ended"

    def _cuda_releasePool(self, index, pool):
        assert self.allocating == "ended"
        self.allocating = None


def test_graphs_are_made_on_their_device_and_a_failed_one_leaves_nothing(monkeypatch):
    cuda = FakeCuda(monkeypatch)
    graphs = CudaGraphs(torch.device("cuda:1"))
    seen = []
    graphs.warm_up(lambda: seen.append((cuda.device_index, cuda.current_stream().device)))
    with pytest.raises(RuntimeError, match="previous error"):
        graphs.record(lambda: seen.append((cuda.device_index, cuda.current_stream().device)))
    assert seen == [(1, 1), (1, 1)]
    assert cuda.device_index == 0
    assert cuda.streams == cuda.defaults
    assert (cuda.allocating, cuda.emptied, cuda.generator_state) == (None, 1, "copied")


def test_a_warm_up_that_fails_leaves_nothing(monkeypatch):
    cuda = FakeCuda(monkeypatch)
    graphs = CudaGraphs(torch.device("cuda:1"))

    def fails():
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        graphs.warm_up(fails)
    assert (cuda.device_index, cuda.streams) == (0, cuda.defaults)
    assert cuda.emptied == 1
    (_, first), (last, other) = cuda.waited  # what was launched before it failed is waited for
    assert first is last is cuda.defaults[1]
    assert other is not last


def test_what_is_undone_leaves_no_trace():
    trained = Trained(CONFIG, "float16", torch.float32)
    before = [tensor.clone() for tensor in [*trained.networks.state_dict().values(), *trained.optimizers.tensors()]]
    scale = trained.optimizers.generator.scaler.get_scale()

    def train():
        with undone(trained.networks, trained.optimizers):
            trained.ordinary(0, [random_batch(2, 64)])
            trained.optimizers.generator.scaler.update(7.0)
            trained.optimizers.classifier.flawed.add_(1)
            (trained.networks.generator[0] * torch.inf).sum().backward()
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        train()
    after = [*trained.networks.state_dict().values(), *trained.optimizers.tensors()]
    assert all(torch.equal(x, y) for x, y in zip(after, before, strict=True))
    assert all(parameter.grad is None for parameter in trained.networks.parameters())
    assert trained.optimizers.generator.scaler.get_scale() == scale
    assert trained.optimizers.generator.scaler._scale is not None  # made in a capture, each replay would make it again


def test_sizes_hold_all_that_masks_can_use():
    sizes = CapturedIteration.sizes.fget
    for n in range(1, 20):
        found = sizes(type("", (), {"_n": n}))
        assert found == sorted(set(found))
        assert len(found) <= 4
        assert found[-1] == 3 * n


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: make test-gpu")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning")
def test_cuda_graphs_replay_the_uncaptured_iteration(store):
    source = batch_source(CONFIG, store)
    gpu = torch.device("cuda")
    runs = []
    for recorder in (None, CudaGraphs(torch.device("cuda", torch.cuda.current_device()))):
        trained = Trained(CONFIG, "float32", torch.float32)
        trained.networks.to(gpu)
        trained.optimizers = Optimizers.of(trained.networks, CONFIG.optim, "float32")
        images = ResidentReader.of(store, gpu).images
        captured = CapturedIteration(
            trained.networks, trained.optimizers, images, source.drawing(gpu), CONFIG, "float32", recorder,
        )  # fmt: skip
        numbers = []
        for i in range(40):
            if i == 35:
                torch.cuda.set_sync_debug_mode("error")
            report = captured(i, numbers_of(i))
            torch.cuda.set_sync_debug_mode("default")
            numbers.append(report.stacked().cpu())
        runs.append(torch.stack(numbers))
    torch.testing.assert_close(runs[0], runs[1], rtol=1e-2, atol=1e-3)
