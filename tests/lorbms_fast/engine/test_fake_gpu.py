"""An iteration as it would run on a GPU, of tensors that have no values."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lorbms_fast.cpp import compiler

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """What torch asks of a GPU, compiled."""
    torchs, made = Path(torch.__file__).parent, tmp_path_factory.mktemp("fake_gpu") / "fake_gpu.so"
    if torch.version.cuda or not compiler():
        pytest.skip("needs a C++ compiler, and torch as it is built for CPUs")
    options = ["-shared", "-fPIC", "-std=c++20", f"-I{torchs / 'include'}", f"-L{torchs / 'lib'}"]
    libraries = ["-ltorch_cpu", "-lc10", f"-Wl,-rpath,{torchs / 'lib'}"]
    subprocess.run([*compiler(), *options, HERE / "fake_gpu.cpp", *libraries, "-o", made], check=True)
    return made


@pytest.mark.slow
@pytest.mark.parametrize(("arithmetic", "form"), [("bfloat16", "triton"), ("float16", "fused")])
def test_an_iteration_asks_nothing_of_the_host_and_autocast_refuses_nothing(arithmetic, form, library):
    command = [sys.executable, "-W", "error::UserWarning", HERE / "fake_gpu.py", arithmetic, form]
    # Before torch is, the library must be there: it asks once whether there is a GPU.
    environment = os.environ | {"LD_PRELOAD": str(library), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ran.stdout.endswith("done\n"), ran.stderr
