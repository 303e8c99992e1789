"""Workers whose parent is killed."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = """
import multiprocessing, os, signal, subprocess, sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
{imports}
pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), {initializer})
print(pool.submit(os.getpid).result(), pool.submit(partial(os.posix_spawnp, "sleep", ["sleep", "60"], {{}})).result())
sys.stdout.flush()
signal.pause()
"""
ALONE = PROGRAM.format(imports="from lorbms_fast.worker import end_with_parent", initializer="end_with_parent")
WITH_COMPILERS = PROGRAM.format(
    imports="import torch; from lorbms_fast.engine.first_use.workers import _begin",
    initializer="_begin, (torch.device('cpu'),)",
)


def runs(pid: int) -> bool:
    """Tell whether a process is there and not only waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(("program", "gone"), [(ALONE, 1), (WITH_COMPILERS, 2)])
def test_a_worker_ends_with_a_killed_parent(program, gone):
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        worker, child = map(int, parent.stdout.readline().split())
        assert runs(worker)
        assert runs(child)
        parent.kill()
    for _ in range(200):
        if not any(map(runs, [worker, child][:gone])):
            break
        time.sleep(0.05)
    else:
        pytest.fail("a worker outlives its parent")
    subprocess.run(["kill", str(child)], check=False, capture_output=True)
