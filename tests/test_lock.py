"""What is pinned can be installed together, also where torch is the package index's CUDA build."""

import subprocess
import sys
from pathlib import Path

import pytest

from tools import lock

PINS = {line.partition("==")[0]: line for line in lock.pins_of(Path(__file__).parents[1] / "constraints.txt")}


def test_a_requirement_that_is_not_met_is_found():
    requires = ["triton==3.7.1; platform_system == 'Linux'", "numpy<1; python_version < '3.12'", "optree; extra == 'o'"]
    installs = [{"metadata": {"name": "torch", "version": "2.13.0", "requires_dist": requires}}]
    installs += [{"metadata": {"name": name, "version": "3.9.0"}} for name in ("triton", "numpy")]
    assert len(lock.clashes(installs, "3.11")) == 2
    (fault,) = lock.clashes(installs, "3.12")
    assert fault.startswith("torch 2.13.0 requires triton==3.7.1")
    assert fault.endswith("but 3.9.0 is pinned")


@pytest.fixture(scope="module")
def metadata_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pip that answers from the index's metadata alone; older ones fetch the 530 MB of torch's CUDA build first."""
    folder = tmp_path_factory.mktemp("pip")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--retries=1", "--timeout=10", f"--target={folder}"]
    if subprocess.run([*command, "pip>=25"], capture_output=True).returncode:
        pytest.skip("no package index can be reached from here")
    return folder


@pytest.mark.parametrize("python", lock.PYTHONS)
def test_the_pinned_triton_is_what_the_cuda_build_of_torch_requires(python, metadata_only, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(metadata_only))
    installs = lock.report([PINS["torch"], PINS["triton"]], python)
    (torch,) = (found["metadata"] for found in installs if found["metadata"]["name"] == "torch")
    assert any(line.startswith("triton==") for line in torch["requires_dist"])
    assert lock.clashes(installs, python) == []
