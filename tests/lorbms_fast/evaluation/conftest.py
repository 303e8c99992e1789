"""Composed pictures: scenes, and STL-10's format."""

from pathlib import Path

import pytest
import torch

from lorbms_fast.dataloader.prepare import prepare_store
from lorbms_fast.dataloader.recipes import Recipe
from lorbms_fast.dataloader.sources import of_coco
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.evaluation.datasets.stl10 import Stl10, read_stl10
from lorbms_fast.photos.coco import ANNOTATIONS
from lorbms_fast.photos.composed import COCO, write_composed
from lorbms_fast.photos.stl10 import write_stl10

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def stl10_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("composed") / "stl10_binary"
    write_stl10(folder, train=50, test=20, seed=3)
    return folder


@pytest.fixture
def stl10(stl10_folder: Path) -> Stl10:
    return read_stl10(stl10_folder)


@pytest.fixture(scope="session")
def composed_store(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    """Twenty composed scenes as a store."""
    folder = tmp_path_factory.mktemp("composed_scenes")
    write_composed(folder / "data", 20, 0, 0, seed=2, photographs=False)
    root = folder / "data" / COCO
    photographs = of_coco(root, root / ANNOTATIONS)
    prepare_store(folder / "store", root, photographs, Recipe(versions=(1, 2)))
    return ImageStore.open(folder / "store")
