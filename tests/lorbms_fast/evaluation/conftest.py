"""A trained tiny run, and composed pictures in STL-10's format."""

from pathlib import Path

import pytest
import torch

from lorbms_fast.checkpoint import Run
from lorbms_fast.commands.train import run_training
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.evaluation.datasets.stl10 import Stl10, read_stl10
from lorbms_fast.photos.stl10 import write_stl10
from tests.conftest import TINY

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def stl10_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("composed") / "stl10_binary"
    write_stl10(folder, train=50, test=20, seed=3)
    return folder


@pytest.fixture
def stl10(stl10_folder: Path) -> Stl10:
    return read_stl10(stl10_folder)


@pytest.fixture
def run(store: ImageStore, tmp_path: Path) -> Path:
    """Six iterations of a tiny model."""
    run_training(Run.create(tmp_path / "run", TINY, store.path), store)
    return tmp_path / "run"
