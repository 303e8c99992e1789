"""k-means by Faiss, and which Faiss that is."""

from types import SimpleNamespace

import faiss
import numpy as np
import pytest
import torch

from lorbms_fast.similarity import kmeans
from lorbms_fast.similarity.kmeans import installed_faiss, told_faiss, trained_kmeans


@pytest.mark.parametrize(("device", "gpus", "expected"), [("cpu", 1, False), ("cuda", 0, False), ("cuda", 2, True)])
def test_a_gpu_where_the_device_and_faiss_are_for_one(device, gpus, expected, monkeypatch):
    asked = []

    class Fake:
        def __init__(self, d: int, k: int, **options: object) -> None:
            asked.append(options["gpu"])

        def train(self, x: np.ndarray) -> None:
            assert x.flags.c_contiguous

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: gpus)
    monkeypatch.setattr(faiss, "Kmeans", Fake)
    trained_kmeans(np.ones((20, 3), np.float32)[::2], 2, 0, torch.device(device))
    assert asked == [expected]
    assert ("on the GPU" in told_faiss(torch.device(device))) == expected


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
