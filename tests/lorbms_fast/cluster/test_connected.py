"""Clusters by their address: a head that asks for a token, and addresses where nobody is."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from lorbms_fast.dataloader.prepare import prepare_store
from lorbms_fast.dataloader.recipes import Recipe
from lorbms_fast.dataloader.sources import photographs_in
from lorbms_fast.errors import UserError

ROOT = Path(__file__).parents[3]
ray = pytest.importorskip("ray", reason="needs Ray: pip install 'lorbms-fast[cluster]', or make test-cluster")


class Head(NamedTuple):
    port: int
    client_port: int
    environment: dict[str, str]


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports: list[int] = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def head(tmp_path_factory) -> Iterator[Head]:
    """A head as `ray start` makes it, which asks for a token."""
    port, client_port = free_ports(2)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {
        "PYTHONPATH": str(ROOT),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
        "HOME": str(tmp_path_factory.mktemp("home")),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}"]
    command += [f"--ray-client-server-port={client_port}", "--num-cpus=2"]
    command += ["--include-dashboard=false", "--object-store-memory=200000000", "--disable-usage-stats"]
    with subprocess.Popen(
        command,
        env=environment | {"RAY_AUTH_MODE": "token"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        for wanted in (port, client_port):
            while process.poll() is None:
                with socket.socket() as there:
                    if there.connect_ex(("127.0.0.1", wanted)) == 0:
                        break
                time.sleep(0.2)
        if process.poll() is not None:
            pytest.skip("ray start --head ended at once here")
        yield Head(port, client_port, environment)
        os.killpg(process.pid, signal.SIGTERM)


def prepare(source: Path, out: Path, address: str, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "lorbms_fast", "prepare", str(source), "--out", str(out), "--cluster", address]
    return subprocess.run([*command, "--min-side", "1"], env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
@pytest.mark.parametrize("by", ["client", "head"])
def test_a_cluster_that_asks_for_a_token(by, head, shards, tmp_path):
    address = f"ray://127.0.0.1:{head.client_port}" if by == "client" else f"127.0.0.1:{head.port}"
    prepare_store(tmp_path / "one", shards, photographs_in(shards, "tar"), Recipe(min_side=1))
    done = prepare(shards, tmp_path / "many", address, head.environment | {"RAY_AUTH_MODE": "token"})
    assert done.returncode == 0, done.stderr
    for path in (tmp_path / "one").iterdir():
        assert (tmp_path / "many" / path.name).read_bytes() == path.read_bytes()
    refused = prepare(shards, tmp_path / "none", address, head.environment)
    assert refused.returncode == 2
    assert "set RAY_AUTH_MODE=token" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_where_nobody_is(scheme, monkeypatch):
    from lorbms_fast.cluster import tasks

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    address = f"{scheme}127.0.0.1:{free_ports(1)[0]}"
    with (
        pytest.raises(UserError, match=rf"nothing answers at --cluster {address} \(.*refused\): start a cluster with"),
        tasks.connected(address),
    ):
        pass


@pytest.mark.parametrize(
    ("error", "told"),
    [
        pytest.param(
            ray.exceptions.AuthenticationError("no token was found"),
            r"at --cluster ray \(AuthenticationError: no token .*RAY_AUTH_MODE=token",
            id="not let in",
        ),
        pytest.param(
            Exception("The current node timed out during startup."),  # as Ray does
            r"timed out during startup.*a busy machine may need another try",
            id="too busy to start",
        ),
    ],
)
def test_why_ray_does_not_come_is_told(error, told, monkeypatch):
    from lorbms_fast.cluster import tasks

    def refuse(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(UserError, match=told), tasks.connected("ray"):
        pass


def test_a_head_whose_server_dies_while_it_starts_is_asked_again(monkeypatch):
    from lorbms_fast.cluster import tasks

    asked = []

    def start(*arguments: object, **options: object) -> None:
        asked.append(arguments)
        if len(asked) < 3:
            raise ConnectionAbortedError(
                "RuntimeError: Starting Ray client server failed. See ray_client_server_23000.err"
            )

    monkeypatch.setattr(ray, "init", start)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(tasks, "described", lambda: "one machine")
    with tasks.connected("ray"):
        assert len(asked) == 3
