"""k-means by Faiss, and which Faiss that is."""

from types import SimpleNamespace

import faiss
import numpy as np
import pytest
import torch

from lorbms_fast.similarity import kmeans
from lorbms_fast.similarity.kmeans import installed_faiss, told_faiss, trained_kmeans


@pytest.mark.parametrize(
    ("device", "gpus", "expected"), [("cpu", 1, []), ("cuda", 0, []), ("cuda", 2, [0]), ("cuda:1", 2, [1])]
)
def test_the_gpu_that_is_asked_for_where_faiss_is_for_one(device, gpus, expected, monkeypatch):
    taken = []

    def index_cpu_to_gpu(resources, number, index):
        taken.append(number)
        return index

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: gpus)
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", index_cpu_to_gpu, raising=False)
    trained_kmeans(np.ones((20, 3), np.float32)[::2], 2, 0, torch.device(device))
    assert taken == expected
    assert ("on the GPU" in told_faiss(torch.device(device))) == bool(expected)


def test_equal_rows_do_not_end_it():
    trained = trained_kmeans(np.ones((30, 1280), np.float32), 4, 0, torch.device("cpu"))
    assert np.isfinite(trained.centroids).all()


def test_two_faiss_in_one_place_are_told(monkeypatch):
    assert "warning" not in told_faiss(torch.device("cpu"))
    assert installed_faiss()[0].startswith("faiss")

    def both() -> list[SimpleNamespace]:
        names = ("faiss-cpu", "numpy", "faiss-gpu-cu12")
        return [SimpleNamespace(metadata={"Name": name}, version="1.15.1") for name in names]

    monkeypatch.setattr(kmeans.metadata, "distributions", both)
    assert told_faiss(torch.device("cpu")).startswith("faiss-cpu 1.15.1, faiss-gpu-cu12 1.15.1, on the CPU")
    assert "warning: these install the same module" in told_faiss(torch.device("cpu"))
