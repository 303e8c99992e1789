"""Tasks on a cluster: where those that ask for a GPU are done."""

import pytest

from lorbms_fast.dataloader.decoders import fastest
from lorbms_fast.errors import UserError
from tests.lorbms_fast.cluster.conftest import add_node


@pytest.mark.slow
def test_gpu_tasks_are_done_where_a_gpu_is(nodes, monkeypatch):
    """Ray is told of a GPU that is not there, as it would find one that is."""
    import ray

    from lorbms_fast.cluster import prepare, tasks

    def seen(shared: None, item: int) -> tuple[bool, str]:
        return tasks.is_gpu_task(), ray.get_runtime_context().get_node_id()

    def places(gpu: bool) -> set[tuple[bool, str]]:
        some = [tasks.Task(str(number), 1, number) for number in range(6)]
        return {found for _, found in tasks.results(seen, None, some, "looking", len(some), gpu=gpu)}

    assert not tasks.has_gpus()
    assert prepare.fastest_on_cluster() == fastest()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)  # by which tests hide GPUs, from Ray as well
    with_gpu = add_node(nodes, num_cpus=1, num_gpus=1)
    try:
        nodes.wait_for_nodes()
        assert tasks.has_gpus()
        assert places(gpu=True) == {(True, with_gpu.node_id)}
        assert {is_gpu for is_gpu, _ in places(gpu=False)} == {False}
        assert prepare.fastest_on_cluster()[0] == "scaled"  # asked of that machine, where torch sees none
    finally:
        nodes.remove_node(with_gpu)


def test_shards_ask_for_gpus_where_dali_decodes(monkeypatch, shards, tmp_path):
    pytest.importorskip("ray", reason="needs Ray: pip install 'lorbms-fast[cluster]', or make test-cluster")
    from lorbms_fast.cluster import prepare
    from lorbms_fast.dataloader.recipes import Recipe
    from lorbms_fast.dataloader.sources import photographs_in

    asked = {}

    def here(work, shared, tasks, *_: object, gpu: bool, **__: object):
        asked[shared.settings.decoder] = gpu
        for task in tasks:
            yield task, work(shared, task.item)

    monkeypatch.setattr(prepare, "has_gpus", lambda: True)
    monkeypatch.setattr(prepare, "results", here)
    listing = photographs_in(shards, "tar")
    monkeypatch.setattr(prepare, "_make_shard", lambda job, item: b"")
    for decoder in ("scaled", "dali"):
        with pytest.raises(FileNotFoundError):  # no shard is made
            prepare.prepare_on_cluster(tmp_path / decoder, shards, listing, Recipe(), decoder=decoder)
    assert asked == {"scaled": False, "dali": True}


def test_what_cannot_be_reached_is_tried_again_and_told_in_a_line(nodes, tmp_path, capfd):
    from lorbms_fast.cluster import tasks

    counted = tmp_path / "tries"

    def work(times: int, item: None) -> str:
        with counted.open("a") as file:
            file.write("x")
        if len(counted.read_text()) <= times:
            raise OSError("no route")
        return "done"

    assert tasks.result(work, 2, "some work", 1) == "done"
    assert counted.read_text() == "xxx"
    said = capfd.readouterr().err
    assert said.count("trying again: some work, on ") == 1
    assert "Traceback" not in said
    assert "ray::" not in said
    with pytest.raises(UserError, match=r"some work, on \S+: no route"):
        tasks.result(work, 1000, "some work", 1)
    assert len(counted.read_text()) == 3 + tasks.RETRIES + 1


def test_a_mistake_of_the_program_keeps_its_traceback(nodes):
    from lorbms_fast.cluster import tasks

    def work(shared: None, item: None) -> None:
        return {}[item]

    with pytest.raises(RuntimeError, match=r"some work, on \S+: KeyError: None") as raised:
        tasks.result(work, None, "some work", 1)
    assert not isinstance(raised.value, UserError)
