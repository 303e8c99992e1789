"""Training against signals, full and read-only disks, clocks that are set, want of memory, and a store that goes."""

import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import tqdm

from lorbms_fast import checkpoint
from lorbms_fast.cli import main
from lorbms_fast.config import TrainConfig, to_json
from lorbms_fast.dataloader.batches import NeighbourBatches
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.engine import oom
from lorbms_fast.engine.log import read_lines
from lorbms_fast.engine.signals import stop_requests
from lorbms_fast.errors import UserError
from lorbms_fast.measurement.proc import bytes_told
from lorbms_fast.progress import tqdm as bar
from lorbms_fast.run import Progress, Run
from lorbms_fast.training.session import run_training
from tests.conftest import TINY
from tests.processes import started, train

LONG = replace(TINY, iterations=100_000, sheet_every=100_000, checkpoint_every=100_000)


def iterations(run: Run) -> int:
    return len(read_lines(run.folder / "metrics.jsonl"))


def until(condition, process) -> None:
    while process.is_alive() and not condition():
        time.sleep(0.005)


def cpu_seconds(process: int) -> float:
    """Seconds that a process has computed: others on the machine do not count."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_sigterm_saves_and_exits_within_ten_seconds(store, tmp_path):
    run = Run.create(tmp_path / "run", LONG, store.path)
    with started(train, run.folder, says=tmp_path / "said") as process:
        until(lambda: iterations(run) >= 3, process)
        os.kill(process.pid, signal.SIGTERM)
        before = after = cpu_seconds(process.pid)
        while process.is_alive():
            after = cpu_seconds(process.pid)
            process.join(0.01)
    assert process.exitcode == 130
    assert after - before < 10
    done = iterations(run)
    assert int(run.latest().name) == done
    said = (tmp_path / "said").read_text()
    assert f"stopped after iteration {done}: go on with  lorbms-fast train --resume {run.folder}" in said
    run_training(replace(run, config=replace(LONG, iterations=done + 1)), store)
    assert int(run.latest().name) == done + 1


def test_a_terminal_that_is_closed_saves_too(store, tmp_path):
    """The system and the shell send SIGHUP each."""
    run = Run.create(tmp_path / "run", LONG, store.path)
    with started(train, run.folder, says=tmp_path / "said") as process:
        until(lambda: iterations(run) >= 3, process)
        for _ in range(2):
            os.kill(process.pid, signal.SIGHUP)
            time.sleep(0.01)
        process.join()
    assert process.exitcode == 130
    assert int(run.latest().name) == iterations(run)


@pytest.mark.parametrize(("before", "stops"), [(signal.SIG_DFL, True), (signal.SIG_IGN, False)])
def test_nohup_is_heeded(before, stops):
    usual = signal.signal(signal.SIGHUP, before)
    try:
        with stop_requests() as stop:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGHUP)
                assert stop.came == stops
    finally:
        signal.signal(signal.SIGHUP, usual)


def train_slowly(folder: Path) -> None:
    """Stay in the fourth iteration for ever."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell has its background jobs ignore
    batch = NeighbourBatches.batch

    def slowly(source: NeighbourBatches, number: int):
        if number == 3:
            (folder / "waiting").touch()
            while True:
                time.sleep(1)
        return batch(source, number)

    NeighbourBatches.batch = slowly
    train(folder)


def test_a_second_sigint_does_not_wait(store, tmp_path):
    run = Run.create(tmp_path / "run", replace(LONG, checkpoint_every=2), store.path)
    with started(train_slowly, run.folder) as process:
        until((run.folder / "waiting").exists, process)
        os.kill(process.pid, signal.SIGINT)
        process.join(0.3)
        assert process.is_alive()
        os.kill(process.pid, signal.SIGINT)
        process.join(60)
        assert process.exitcode == 1
    assert [path.name for path in run.checkpoints()] == ["00000002"]
    checkpoint.check(run.latest())
    run_training(replace(run, config=replace(TINY, iterations=4)), store)
    assert iterations(run) == 4


def test_two_processes_do_not_train_one_run(store, tmp_path):
    run = Run.create(tmp_path / "run", LONG, store.path)
    with started(train, run.folder) as process:
        until(lambda: iterations(run) >= 1, process)
        with pytest.raises(UserError, match="another process is training"):
            run_training(run, store)


def fill(folder: Path, leaving: int) -> Path:
    """Fill a disk but for some bytes."""
    ballast = folder / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(folder).free - leaving))
    return ballast


def test_a_disk_that_fills_while_training(small_disk, store, monkeypatch):
    config = replace(TINY, sheet_every=100, iterations=5)
    run = Run.create(small_disk / "run", config, store.path)
    batch = NeighbourBatches.batch

    def filling(source: NeighbourBatches, number: int):
        if number == 3:
            fill(small_disk, leaving=50_000)
        return batch(source, number)

    monkeypatch.setattr(NeighbourBatches, "batch", filling)
    with pytest.raises(UserError, match=r"cannot write .*run/.*: No space left on device; free some space or go on"):
        run_training(run, store)
    monkeypatch.undo()
    assert [path.name for path in run.checkpoints()] == ["00000002"]
    assert not list(run.folder.rglob(".*.partial"))
    with pytest.raises(
        UserError, match=r"needs \d\.\d MB for checkpoints and 0\.[01] MB are free on its disk: make room"
    ):
        run_training(run, store)
    (small_disk / "ballast").unlink()
    run_training(run, store)
    assert iterations(run) == 5


def test_output_that_cannot_be_written(small_disk, store):
    run = Run.create(small_disk / "run", TINY, store.path)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for start, remedy in (
        (lambda: run_training(run, store), r"go on in a copy:  lorbms-fast train --resume .*disk/run --out NEW"),
        (lambda: Run.create(small_disk / "new", TINY, store.path), "choose another place"),
    ):
        with pytest.raises(UserError, match=rf"cannot write .*disk/.*: Read-only file system; {remedy}"):
            start()


def test_clocks_that_jump(store, tmp_path, monkeypatch, capsys):
    """An hour back, a year on, at every look: nothing rests on the time of day."""
    config = replace(TINY, iterations=4)
    steady = Run.create(tmp_path / "steady", config, store.path)
    run_training(steady, store)
    now, jumps = time.time(), itertools.cycle([0, -3600, 3e7, -9e7])
    monkeypatch.setattr(time, "time", lambda: now + next(jumps))
    monkeypatch.setattr(tqdm.std, "time", time.time)
    jumping = Run.create(tmp_path / "jumping", config, store.path)
    run_training(jumping, store)
    assert (jumping.folder / "metrics.jsonl").read_bytes() == (steady.folder / "metrics.jsonl").read_bytes()
    files = [{path.name: path.read_bytes() for path in run.latest().iterdir()} for run in (steady, jumping)]
    assert files[0] == files[1]
    capsys.readouterr()
    with bar(total=3, mininterval=0) as shown:
        for _ in range(3):
            shown.update()
            assert 0 <= shown.format_dict["elapsed"] < 60
    assert capsys.readouterr().err.count("3/3") >= 1


@pytest.mark.parametrize(
    ("error", "wanting"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you"), True),
        (MemoryError(), True),
        (RuntimeError("shapes do not match"), False),
        (ValueError("not enough memory"), False),
    ],
)
def test_want_of_memory_is_told_from_other_errors(error, wanting):
    assert oom.is_want_of_memory(error) == wanting


def test_other_errors_are_no_want_of_memory():
    with pytest.raises(RuntimeError, match="shapes"), oom.out_of_memory_told(3, torch.device("cpu")):
        raise RuntimeError("shapes do not match")


def train_in_little_memory(folder: Path, store: Path) -> None:
    """As the command does, with a limit on the process's memory that 2,000 images do not fit in."""
    taken = bytes_told("VmSize")
    resource.setrlimit(resource.RLIMIT_AS, (taken + 600_000_000, resource.RLIM_INFINITY))
    main(["train", str(store), "--out", str(folder / "run"), "--config", str(folder / "large.json")])


def test_a_real_want_of_memory_is_one_line(store, tmp_path, monkeypatch):
    config = replace(TINY, model=replace(TINY.model, stem=256), batch_size=24)
    (tmp_path / "large.json").write_text(to_json(config))
    with started(train_in_little_memory, tmp_path, store.path, says=tmp_path / "said") as process:
        process.join()
    assert process.exitcode == 2
    said = (tmp_path / "said").read_text().splitlines()[-1]
    assert said.startswith("lorbms-fast: --batch-size 24 does not fit in the memory of cpu: lower it, or ")


@pytest.mark.parametrize("how", ["removed", "cut short"])
def test_a_store_that_goes_while_it_is_read(how, store, tmp_path, monkeypatch):
    config: TrainConfig = replace(TINY, sheet_every=100, checkpoint_every=100, log_every=2)
    run = Run.create(tmp_path / "run", config, store.path)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(store.path, elsewhere)
    batch = NeighbourBatches.batch

    def going(source: NeighbourBatches, number: int):
        made = batch(source, number)
        if number == 3:
            if how == "removed":
                shutil.rmtree(store.path)
            else:
                os.truncate(store.path / "images-00000.npy", 1000)
        return made

    monkeypatch.setattr(NeighbourBatches, "batch", going)
    with pytest.raises(UserError) as stopped:
        run_training(run, store)
    monkeypatch.undo()
    assert str(store.path / "images-00000.npy") in str(stopped.value)
    assert "iteration 4 is saved" in str(stopped.value)
    with pytest.raises(UserError, match=r"store"):
        ImageStore.open(store.path)
    shutil.rmtree(store.path, ignore_errors=True)
    shutil.move(elsewhere, store.path)
    assert json.loads((run.latest() / "state.json").read_text())["iteration"] == 4
    run_training(run, ImageStore.open(store.path))
    assert int(run.latest().name) == 6


def test_photographs_that_go_while_they_are_streamed(photographs, tmp_path, monkeypatch):
    from tests.conftest import store_of

    copied = tmp_path / "photographs"
    shutil.copytree(photographs, copied)
    store = store_of(copied, tmp_path / "store")
    config = replace(TINY, sheet_every=100, images="streamed", iterations=8)
    run = Run.create(tmp_path / "run", config, store.path)
    batch = NeighbourBatches.batch

    def going(source: NeighbourBatches, number: int):
        if number == 3:
            shutil.rmtree(copied)
        return batch(source, number)

    monkeypatch.setattr(NeighbourBatches, "batch", going)
    with pytest.raises(UserError, match=r"photographs, of whose photographs .* was made, is missing: put it back"):
        run_training(run, store)
    monkeypatch.undo()
    shutil.copytree(photographs, copied)
    assert int(run.latest().name) in (2, 4)
    run_training(run, store)
    assert int(run.latest().name) == 8


def test_nothing_but_progress_is_new_in_a_resumed_state(store, tmp_path):
    """What state.json says can be read by anybody, and says how far the run came."""
    run = Run.create(tmp_path / "run", replace(TINY, iterations=1), store.path)
    run_training(run, store)
    facts = checkpoint.facts_of(run.latest())
    assert Progress(*(facts[name] for name in Progress._fields)) == Progress(1, 3, 0)
