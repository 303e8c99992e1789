"""A Ray cluster of three nodes on this machine (the first works on nothing), and a server that speaks S3."""

import io
import json
import os
import random
import shutil
import socket
import subprocess
import tarfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lorbms_fast.photos import shipped

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def settings() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="session")
def bucket(settings) -> Iterator[str]:
    """The URL of an empty bucket; asked for before the cluster, whose workers get the environment."""
    pytest.importorskip("obstore", reason="needs obstore: pip install 'lorbms-fast[cluster]'")
    server = shutil.which("moto_server") or next(ROOT.glob(".moto/bin/moto_server"), None)
    if server is None:
        pytest.skip("no server that speaks S3: make test-cluster installs moto's")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    for name, value in {
        "AWS_ENDPOINT": address,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }.items():
        settings.setenv(name, value)
    with subprocess.Popen(
        [server, "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        for _ in range(600):
            try:
                urllib.request.urlopen(urllib.request.Request(f"{address}/bucket", method="PUT")).close()
                break
            except OSError:
                time.sleep(0.1)
        yield "s3://bucket"
        os.killpg(process.pid, 9)  # a version manager's shim is a process before the server


def add_node(cluster: Any, **options: object) -> Any:
    """Add a node, again where a busy machine takes longer than the 30 seconds that Ray gives it."""
    for attempt in range(10):
        try:
            return cluster.add_node(**options)
        except Exception as error:
            if "timed out during startup" not in str(error) or attempt == 9:
                raise
    return None


@pytest.fixture(scope="session")
def nodes(request, settings, tmp_path_factory) -> Iterator[Any]:
    """A cluster whose two working nodes may be removed and added; this process is its driver."""
    ray = pytest.importorskip("ray", reason="needs Ray: pip install 'lorbms-fast[cluster]', or make test-cluster")
    from ray._common.utils import reset_ray_address
    from ray.cluster_utils import Cluster

    with suppress(pytest.skip.Exception):  # tests of it say why
        request.getfixturevalue("bucket")
    settings.setenv("LORBMS_CACHE", str(tmp_path_factory.mktemp("copies")))
    settings.setenv("PYTHONPATH", f"{ROOT}:{os.environ.get('PYTHONPATH', '')}")  # not every environment has us
    settings.setenv("RAY_health_check_period_ms", "500")
    settings.setenv("RAY_health_check_failure_threshold", "3")
    settings.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cluster = Cluster()
    add_node(cluster, num_cpus=0, include_dashboard=False)
    reset_ray_address()  # Ray would tell other processes of this machine of it
    for _ in range(2):
        add_node(cluster, num_cpus=1)
    ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def killed_meanwhile(nodes) -> Callable[[Callable[[int], bool], int], None]:
    """A function that does `work(number)` again and again while nodes are killed, and checks that it is right."""

    def do(work: Callable[[int], bool], kills: int) -> None:
        random.seed(0)
        working, enough, right = threading.Event(), threading.Event(), list[bool]()

        def again() -> None:
            while not enough.is_set() or not right:
                working.set()
                right.append(work(len(right)))
                working.clear()

        with ThreadPoolExecutor(1) as other:  # Ray starts nodes from the main thread only
            all_work = other.submit(again)
            try:
                for _ in range(kills):
                    while not working.wait(0.1) and not all_work.done():
                        pass
                    time.sleep(random.uniform(0, 1.5))
                    nodes.remove_node(random.choice(list(nodes.worker_nodes)), allow_graceful=False)
                    add_node(nodes, num_cpus=1)
            finally:
                enough.set()
            all_work.result()
        assert right
        assert all(right)

    return do


def archive(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> Path:
    """WebDataset shards as img2dataset leaves them: a photograph is cut short, a shard empty, two have the same ids."""
    folder = tmp_path_factory.mktemp("source") / "shards"
    folder.mkdir()
    photographs = [photo.path.read_bytes() for photo in shipped.scenes()[:240]]
    photographs[45] = photographs[45][:3000]
    for shard in range(6):
        members: dict[str, bytes] = {}
        for i in range(40 * shard, 40 * (shard + 1)):
            key = f"{i % 40 if shard in (2, 3) else i:09d}"
            members |= {f"{key}.jpg": photographs[i], f"{key}.json": json.dumps({"key": key}).encode()}
        archive(folder / f"{shard:05d}.tar", members)
        (folder / f"{shard:05d}_stats.json").write_text("{}")
    archive(folder / "00006.tar", {})
    return folder
