"""What the host does beside the device: it waits for nothing, both draw the same, and other features go with graphs."""

from collections.abc import Callable
from functools import partial

import torch
import torch.distributed as dist

from bench.gpu.findings import Findings
from bench.gpu.setting import Setting
from lorbms_fast.config import Precision
from lorbms_fast.dataloader import counter_rng
from lorbms_fast.engine.distributed import average, let_go
from lorbms_fast.engine.torch_compile import compile_regions
from lorbms_fast.errors import said
from lorbms_fast.measurement.step import captured, random_draws
from lorbms_fast.mixing import mixing_mask, padded_candidates

CPU = torch.device("cpu")


def run(findings: Findings, setting: Setting) -> None:
    """Ask one question after the other; one that fails keeps no other from being asked."""
    questions: dict[str, Callable[[Setting], str]] = {
        "the device draws what the host draws": _draws_are_equal,
        "no replay makes the host wait": _replays_do_not_wait,
        "one process of NCCL goes into a graph": _one_process_of_nccl,
        "compiled regions go into a graph": _compiled_regions,
    }
    for question, answer in questions.items():
        try:
            findings.row("Questions", question=question, answer=answer(setting))
        except Exception as error:
            findings.row("Questions", said(error), question=question, answer="no")


def _draws_are_equal(setting: Setting) -> str:
    n, count = 12, 1000
    there, here = (random_draws(n, device, (18, 24, 30, 36)) for device in (setting.device, CPU))
    on_device, on_host = there(range(count)), here(range(count))
    pairs = [*zip(on_device, on_host, strict=True)]
    pairs.append((counter_rng.permutation(338_865, 7, setting.device), counter_rng.permutation(338_865, 7, CPU)))
    distances = torch.rand((count * n, 4), generator=torch.Generator().manual_seed(0))
    pairs += [(mixing_mask(distances.to(setting.device), 0.5), mixing_mask(distances, 0.5))]
    pairs += [(padded_candidates(on_device.mask, 3 * n), padded_candidates(on_host.mask, 3 * n))]
    assert all(torch.equal(a.cpu(), b) for a, b in pairs), "they differ"
    return f"yes, {count} batches"


def _replays_do_not_wait(setting: Setting) -> str:
    one = setting.recording(captured(setting.model, setting.batch, _precision(setting), setting.device))
    one.iterate(range(3))
    if setting.device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        one.iterate(range(3, 4 if setting.rehearse else 8))
    finally:
        if setting.device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    assert one.iteration.graphs, "nothing was captured: see log.txt"
    return "yes, 5 replays"


def _one_process_of_nccl(setting: Setting) -> str:
    backend = "gloo" if setting.rehearse else "nccl"
    store = dist.HashStore()  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, rank=0, world_size=1)
    try:
        _iterate_alone(setting)
    except BaseException as error:
        let_go(error)
        raise
    finally:
        dist.destroy_process_group()
    return f"yes, {backend}"


def _iterate_alone(setting: Setting) -> None:
    """Iterate as a group's only process; there is no graph left at its end, which NCCL would wait for."""
    one = captured(setting.model, setting.batch, _precision(setting), setting.device)
    for optimizer in vars(one.optimizers).values():
        optimizer.average = partial(average, processes=1)
    if not setting.rehearse:  # a tape cannot wait for a collective operation
        setting.recording(one)
    one.iterate(range(2 if setting.rehearse else 5))
    assert setting.rehearse or one.iteration.graphs, "nothing was captured: see log.txt"


def _compiled_regions(setting: Setting) -> str:
    one = captured(setting.model, setting.batch, _precision(setting), setting.device)
    graphs = compile_regions(one.networks, ["dsc", "cls"], "eager" if setting.rehearse else "inductor")
    if not setting.rehearse:  # a tape inside torch.compile would write down what is compiled
        setting.recording(one)
    one.iterate(range(2 if setting.rehearse else 5))
    assert setting.rehearse or one.iteration.graphs, "nothing was captured: see log.txt"
    counts = ", ".join(f"{region} {found.count}" for region, found in graphs.items())
    return f"yes, compiled: {counts}"


def _precision(setting: Setting) -> Precision:
    return "float32" if setting.rehearse else "bfloat16"
