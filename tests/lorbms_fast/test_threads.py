"""How OpenMP is asked to wait, and for how many threads, before torch loads it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lorbms_fast.threads import choose_threads

MANY = list(range(16))


def chosen(root: Path, given: dict[str, str] | None = None) -> dict[str, str]:
    environment = dict(given or {})
    choose_threads(environment, root)
    return environment


def machine(root: Path, groups: str, limits: dict[str, str]) -> Path:
    for name, content in {"proc/self/cgroup": groups, **{f"sys/fs/cgroup/{n}": c for n, c in limits.items()}}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


@pytest.mark.parametrize(
    ("groups", "limits", "threads"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, "2"),
        ("0::/\n", {"cpu.max": "250000 100000\n"}, "2"),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, "1"),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {"cpu.max": "6400000 100000\n"}, None),
        ("0::/\n", {}, None),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n"}, "3"),
        ("0::/a/b\n", {"a/b/cpu.max": "400000 100000\n", "a/cpu.max": "300000 100000\n"}, "3"),
        ("0::/elsewhere\n", {"cpu.max": "300000 100000\n"}, "3"),
        (
            "5:memory:/x\n4:cpu,cpuacct:/x\n",
            {"cpu/x/cpu.cfs_quota_us": "150000\n", "cpu/x/cpu.cfs_period_us": "50000\n"},
            "3",
        ),
        ("4:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ("0::/\n", {"cpu.max": "nonsense\n"}, None),
    ],
)
def test_threads_are_no_more_than_a_control_group_may_use(groups, limits, threads, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: MANY)
    assert chosen(machine(tmp_path, groups, limits)).get("OMP_NUM_THREADS") == threads


def test_what_the_user_has_set_stays(tmp_path):
    given = {"OMP_WAIT_POLICY": "ACTIVE", "OMP_NUM_THREADS": "7"}
    assert chosen(machine(tmp_path, "0::/\n", {"cpu.max": "100000 100000"}), given) == given


def test_elsewhere_nothing_is_known(tmp_path):
    assert chosen(tmp_path) == {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}
    assert chosen(tmp_path, {"GOMP_SPINCOUNT": "5"}) == {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "5"}


def test_the_command_chooses_before_torch_loads():
    program = """
import os, sys
import lorbms_fast.cli
def before_torch(event, arguments):
    if event == "import" and arguments[0] == "torch" and not told:
        told.append(os.environ.get("OMP_WAIT_POLICY"))
told = []
sys.addaudithook(before_torch)
try:
    lorbms_fast.cli.main(["info", "--preset", "demo", "--json"])
finally:
    print(told, file=sys.stderr)
"""
    for given, expected in ((None, "PASSIVE"), ("ACTIVE", "ACTIVE")):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
        environment |= {} if given is None else {"OMP_WAIT_POLICY": given}
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
        assert done.stderr.splitlines()[-1] == str([expected])
