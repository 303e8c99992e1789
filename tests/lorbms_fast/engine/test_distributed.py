"""Two processes over gloo against one that sees both their batches; and what happens when one is killed."""

import json
import os
import subprocess
import sys
import time
import weakref
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from lorbms_fast import losses
from lorbms_fast.config import to_json
from lorbms_fast.engine import distributed
from lorbms_fast.engine.distributed import World
from lorbms_fast.engine.implementations import IMPLS
from lorbms_fast.engine.iteration import iterate
from lorbms_fast.engine.trainer import Training
from lorbms_fast.errors import UserError
from lorbms_fast.kernels._common import dispatch, operation
from lorbms_fast.measurement.step import captured, random_batch
from lorbms_fast.models import build
from lorbms_fast.optimizers import Optimizers
from lorbms_fast.run import BEGINNING, Progress, Run
from lorbms_fast.training.session import run_training
from lorbms_fast.training.setup import batch_source
from lorbms_fast.types import Batch, Networks
from tests.conftest import TINY
from tests.processes import work_together

PROCESSES = 2
FAST = IMPLS["fast"]
LOSS = replace(TINY.loss, cls=0.0)  # batch statistics tie samples together; they are a process's own
MODEL = TINY.model


def share(rank: int) -> Batch:
    """One process's batch."""
    batch = random_batch(3, 64, seed=rank)
    return Batch(batch.I_ref.double(), batch.I_q.double(), batch.mask)


def both() -> Batch:
    a, b = share(0), share(1)
    return Batch(torch.cat([a.I_ref, b.I_ref]), torch.cat([a.I_q, b.I_q], 1), torch.cat([a.mask, b.mask]))


def three_losses(networks, batches):
    """L_G of a batch without L_cls, the mean of L_cls over batches with statistics of each, and L_D."""
    whole = both() if len(batches) == PROCESSES else batches[0]
    yield "generator", FAST.generator_losses(networks, whole, LOSS)[0].L_G
    of_each = []
    for batch in batches:
        I_mix = FAST.scenes(networks, batch).I_mix.detach()
        of_each.append(FAST.classifier_loss(networks, I_mix, batch, LOSS))
    yield "classifier", torch.stack(of_each).mean()
    I_mix = FAST.scenes(networks, whole).I_mix.detach()
    yield "discriminator", losses.discrimination(networks.dsc(whole.I_ref), networks.dsc(I_mix))


def losses_of_one_batch(networks, batch):
    """L_G, L_cls and L_D, all with the statistics of the batch."""
    yield "generator", FAST.generator_losses(networks, batch, TINY.loss)[0].L_G
    I_mix = FAST.scenes(networks, batch).I_mix.detach()
    yield "classifier", FAST.classifier_loss(networks, I_mix, batch, TINY.loss)
    yield "discriminator", losses.discrimination(networks.dsc(batch.I_ref), networks.dsc(I_mix))


def gradients(networks, named_losses, processes):
    """Gradients of the three losses by the parameters that each moves."""
    optimizers = Optimizers.of(networks, TINY.optim)
    found = {}
    for name, loss in named_losses:
        optimizer = getattr(optimizers, name)
        parameters = optimizer.param_groups[0]["params"]
        loss.backward(inputs=parameters)
        if processes > 1:
            distributed.average(parameters, processes)
        found[name] = [parameter.grad.clone() for parameter in parameters]
        optimizer.zero_grad()
    return found


def synchronized(rank: int) -> Networks:
    networks = build(MODEL, "fast").double().train()
    distributed.synchronize_batch_norm(networks.cls, World(rank, PROCESSES))
    return networks


def running_averages(networks: Networks) -> dict[str, torch.Tensor]:
    return {name: t for name, t in networks.state_dict().items() if "running" in name}


def as_one_of_two(rank: int, folder: Path) -> None:
    """What each process does: its gradients, and its parameters after two whole iterations, into a file."""
    dist.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=PROCESSES)
    networks = build(MODEL, "fast").double().train()
    found = {"per-process": gradients(networks, three_losses(networks, [share(rank)]), PROCESSES)}
    networks = synchronized(rank)
    found["synchronized"] = gradients(networks, losses_of_one_batch(networks, share(rank)), PROCESSES)
    found["averages"] = running_averages(networks)
    networks = synchronized(rank)
    with distributed.on_its_own(networks.cls):
        if rank == 0:  # nobody else takes part
            FAST.classifier_logits(networks, share(0).I_ref, share(0))
    networks = build(MODEL, "fast").double().train()
    optimizers = Optimizers.of(networks, TINY.optim, average=partial(distributed.average, processes=PROCESSES))
    for _ in range(2):
        iterate(FAST, networks, optimizers, [share(rank)], TINY.loss, TINY.optim)
    found["state"] = {name: t for name, t in networks.state_dict().items() if "running" not in name}
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    work_together(PROCESSES, as_one_of_two, folder)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(PROCESSES)]


@pytest.mark.parametrize("name", ["generator", "classifier", "discriminator"])
@pytest.mark.parametrize("statistics", ["per-process", "synchronized"])
def test_averaged_gradients_are_those_of_the_double_batch(statistics, name, two):
    networks = build(MODEL, "fast").double().train()
    whole = statistics == "synchronized"
    named_losses = losses_of_one_batch(networks, both()) if whole else three_losses(networks, [share(0), share(1)])
    expected = gradients(networks, named_losses, 1)[name]
    scale = max(e.norm() for e in expected)
    for rank in range(PROCESSES):
        for found, e in zip(two[rank][statistics][name], expected, strict=True):
            torch.testing.assert_close(found, e, rtol=1e-9, atol=1e-11 * scale)
    if whole:
        for averages in (two[0]["averages"], two[1]["averages"]):
            for key, expected_average in running_averages(networks).items():
                torch.testing.assert_close(averages[key], expected_average, rtol=1e-12, atol=0)


def test_an_average_keeps_its_layout_and_takes_what_is_missing_for_zero(tmp_path):
    dist.init_process_group("gloo", f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        layers = torch.nn.Conv2d(3, 5, 3).to(memory_format=torch.channels_last), torch.nn.Linear(2, 3)
        layers[0](torch.ones(1, 3, 4, 4)).square().sum().backward()
        parameters = [p for layer in layers for p in layer.parameters()]
        own = [None if p.grad is None else p.grad.clone() for p in parameters]
        distributed.average(parameters, 2)
        for parameter, grad in zip(parameters, own, strict=True):
            assert torch.equal(parameter.grad, torch.zeros_like(parameter) if grad is None else grad / 2)
            assert parameter.grad.stride() == parameter.stride()
    finally:
        dist.destroy_process_group()


def test_parameters_stay_the_same_in_all_processes(two):
    assert all(torch.equal(tensor, two[1]["state"][name]) for name, tensor in two[0]["state"].items())


def test_processes_share_the_batches_without_duplicates(store, tmp_path):
    run = Run.create(tmp_path / "run", replace(TINY, epochs=2, iterations=None), store.path)
    source = batch_source(run.config, store)
    alone = Training.of(run, source)
    assert source.batches_per_epoch == 8
    assert alone.last_iteration(BEGINNING) == 16
    taken = []
    shares = [replace(alone, world=World(rank, 3)) for rank in range(3)]
    for iteration in range(4):
        taken += [n for s in shares for n in s.numbers(s._after(BEGINNING, iteration))]
    progress = shares[0]._after(BEGINNING, 4)
    assert progress == Progress(4, 36)
    assert shares[0].last_iteration(BEGINNING) == 6
    # Two go on where three stopped.
    shares = [replace(alone, world=World(rank, 2)) for rank in range(2)]
    assert shares[0].last_iteration(progress) == 6
    for iteration in (4, 5):
        taken += [n for s in shares for n in s.numbers(s._after(progress, iteration))]
    assert taken == list(range(16))


KILLED = """
import os, signal, sys
from lorbms_fast.cli import main
from lorbms_fast.dataloader.batches import NeighbourBatches

draw = NeighbourBatches.draw

def killed(source, number):
    if number == NUMBER and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    return draw(source, number)

NeighbourBatches.draw = killed
main()
"""


class Agreed:
    """A recorder that replays by doing the work again; one of two processes cannot, once, for a kernel's sake."""

    def __init__(self, stage: str | None, by_kernel: bool) -> None:
        self.stage, self.by_kernel = stage, by_kernel
        self.warmed = 0

    def warm_up(self, work):
        self._fail("warmed up")
        self.warmed += 1
        work()

    def record(self, work):
        self._fail("captured")
        return work

    def _fail(self, stage):
        if stage == self.stage:
            self.stage = None
            error = RuntimeError("misaligned address")
            if self.by_kernel:
                error.launched_by = "lorbms_fast.kernels.lorbms.chunk_mixing.triton.ops"
            raise error


CAPTURES = {"warmed up": True, "captured": True, "captured, by nobody's kernel": False}


def as_one_of_two_that_capture(rank: int, folder: Path) -> None:
    """Two iterations after each failure of the second process: parameters, and what was agreed on."""
    dist.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=PROCESSES)
    found = {}
    for case, by_kernel in CAPTURES.items():
        operation.install({}, set())
        recorder = Agreed(case.partition(",")[0] if rank == 1 else None, by_kernel)
        one = captured(MODEL, 2, "float32", torch.device("cpu"), recorder, sizes=[3, 4], world=World(rank, PROCESSES))
        for optimizer in vars(one.optimizers).values():
            optimizer.average = partial(distributed.average, processes=PROCESSES)
        for i in range(2):
            one.iteration(i, range(PROCESSES * i + rank, PROCESSES * i + rank + 1))
        parameters = torch.cat([parameter.detach().flatten() for parameter in one.networks.parameters()])
        found[case] = parameters, sorted(dispatch.failed), one.iteration.graphs, recorder.warmed
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_processes_agree_on_what_cannot_be_captured_in_one_of_them(tmp_path):
    work_together(PROCESSES, as_one_of_two_that_capture, tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(PROCESSES))
    expected = first["captured, by nobody's kernel"][0]  # all operations one after the other
    for case, by_kernel in CAPTURES.items():
        for parameters, failed, graphs, _ in (first[case], second[case]):
            assert torch.equal(parameters, expected)
            assert failed == (["mix_chunks", "mix_used"] if by_kernel else [])
            assert bool(graphs) == by_kernel
    assert first["captured"][3] == second["captured"][3]  # warmed up as often: they exchange the same


def one_is_late(rank: int, folder: Path) -> None:
    """The second never comes, and the first writes down what it is told after a second."""
    store = dist.FileStore(str(folder / "store"), PROCESSES)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=PROCESSES)
    world = World(rank, PROCESSES, store)
    assert world.gathered(rank) == [0, 1]
    if rank == 1:
        while not (folder / "told").exists():
            time.sleep(0.05)
        return
    with pytest.raises(UserError) as told:
        world.largest(torch.zeros(1), timedelta(seconds=1))
    (folder / "told").write_text(str(told.value))


def test_who_does_not_come_in_time_is_named(tmp_path):
    work_together(PROCESSES, one_is_late, tmp_path)
    told = (tmp_path / "told").read_text()
    assert "lost another process of the run" in told
    assert told.endswith("missing: process 1")


def one_cannot_exchange(rank: int, folder: Path) -> None:
    """The second fails as gradients are exchanged for the first time: both end, though nobody's patience does."""
    os.environ["RANK"] = str(rank)
    store = dist.FileStore(str(folder / "store"), PROCESSES)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=PROCESSES)
    world, recorder = World(rank, PROCESSES, store), Agreed(None, by_kernel=False)
    one = captured(MODEL, 2, "float32", torch.device("cpu"), recorder, sizes=[3, 4], world=world)
    for optimizer in vars(one.optimizers).values():
        optimizer.average = partial(distributed.average, processes=PROCESSES)
    if rank == 1:
        one.optimizers.classifier.average = lambda parameters: torch.empty(1 << 60)
    with pytest.raises(UserError) as told:
        one.iteration(0, range(rank, rank + 1))
    (folder / f"{rank}").write_text(str(told.value))


def test_a_process_that_cannot_exchange_ends_the_others_at_once(tmp_path):
    work_together(PROCESSES, one_cannot_exchange, tmp_path)
    assert "lost another process of the run" in (tmp_path / "0").read_text()
    told = (tmp_path / "1").read_text()
    assert told.startswith("process 1 cannot exchange gradients of the classifier (RuntimeError: ")


def torchrun(folder: Path, store: Path, restarts: int, killed: int) -> subprocess.CompletedProcess:
    (folder / "killed.py").write_text(KILLED.replace("NUMBER", str(killed)))
    (folder / "tiny.json").write_text(to_json(replace(TINY, sheet_every=100)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [
        "--max-restarts",
        str(restarts),
        folder / "killed.py",
        "train",
        store,
        "--out",
        folder / "run",
        "--config",
        folder / "tiny.json",
    ]
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    return subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True, timeout=500)


@pytest.mark.slow
def test_a_killed_worker_ends_the_job_or_is_started_again(store, tmp_path):
    found = []
    for name, restarts, killed in (("ended", 0, 9), ("restarted", 1, 9), ("undisturbed", 0, -1)):
        folder = tmp_path / name
        folder.mkdir()
        ended = torchrun(folder, store.path, restarts, killed)
        run = Run.open(folder / "run")
        if name == "ended":
            assert ended.returncode != 0
            assert "lost another process of the run" in ended.stderr
            assert [path.name for path in run.checkpoints()] == ["00000002", "00000004"]
        else:
            assert ended.returncode == 0, ended.stderr
            log = (folder / "run" / "metrics.jsonl").read_bytes()
            found.append((log, {path.name: path.read_bytes() for path in run.latest().iterdir()}))
    assert found[0] == found[1]
    assert [json.loads(line)["iteration"] for line in found[0][0].splitlines()] == [1, 2, 3, 4, 5, 6]
    networks = build(TINY.model, "fast")
    assert run.restore(networks, Optimizers.of(networks, TINY.optim)) == Progress(6, 36)


def test_one_process_under_torchruns_variables_is_a_world(monkeypatch, store, tmp_path):
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with distributed.joined() as world:
        assert world == World(0, 1)
        run_training(Run.create(tmp_path / "run", replace(TINY, iterations=1), store.path), store, world)
    assert not dist.is_initialized()


def test_processes_that_torchrun_has_not_started_do_not_train_alone_unsaid(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="start all processes by torchrun, or unset WORLD_SIZE"), distributed.joined():
        pass
    monkeypatch.setenv("WORLD_SIZE", "1")
    with distributed.joined() as world:
        assert world == World(0, 1)


def met(monkeypatch, store, size, **variables):
    given = {"TORCHELASTIC_USE_AGENT_STORE": "True", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_MAX_RESTARTS": "3"}
    for name, value in (given | variables).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed, "rendezvous", lambda *_, **__: iter([(store, 0, size)]))
    return distributed._met()[0]


class Graph:
    """Stands for a CUDA graph in which gradients are exchanged."""


def test_an_error_holds_no_graph_when_the_group_ends(monkeypatch):
    """NCCL would wait for its end forever."""
    alive = []
    end = dist.destroy_process_group
    monkeypatch.setattr(dist, "destroy_process_group", lambda: (alive.append(graphs[0]()), end()))
    monkeypatch.setattr(distributed, "_met", lambda: (dist.HashStore(), 0, 1))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    graphs = []

    def replay(graph):
        raise KeyError(str(graph))

    def train():
        graph = Graph()
        graphs.append(weakref.ref(graph))
        try:
            replay(graph)
        except KeyError as error:
            raise UserError("it cannot be replayed") from error

    def run():
        with distributed.joined():
            train()

    with pytest.raises(UserError, match="replayed"):
        run()
    assert alive == [None]


def test_a_group_that_is_started_again_sees_nothing_of_the_dead(monkeypatch):
    shared = dist.HashStore()
    met(monkeypatch, shared, 2, TORCHELASTIC_RESTART_COUNT="0").set("address", "of the dead")
    assert not met(monkeypatch, shared, 2, TORCHELASTIC_RESTART_COUNT="1").check(["address"])
    assert met(monkeypatch, shared, 2, TORCHELASTIC_RESTART_COUNT="0").check(["address"])


def test_several_machines_that_may_be_started_again_need_torchs_switch(monkeypatch):
    shared = dist.HashStore()
    with pytest.raises(UserError, match="set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for torchrun"):
        met(monkeypatch, shared, 4, TORCHELASTIC_RESTART_COUNT="0")
    assert met(monkeypatch, shared, 4, TORCHELASTIC_USE_AGENT_STORE="False") is shared
