"""A small folder of photographs, its store, and a model that trains in a blink."""

import os
from pathlib import Path

# Before anything imports Triton or our kernels: in tests they run in Triton's interpreter, on the CPU.
os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
import pytest
from PIL import Image

from lorbms_fast.config import ModelConfig, TrainConfig
from lorbms_fast.dataloader.prepare import prepare_store
from lorbms_fast.dataloader.recipes import Recipe
from lorbms_fast.dataloader.sources import of_folder
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.similarity.table import NeighbourTable

TINY = TrainConfig(
    model=ModelConfig(
        stem=3,
        growth=2,
        layers=(1, 1, 2, 1, 2),
        chunk=4,
        discriminator_width=2,
        classifier_widths=(4, 4, 4, 4, 4),
        classifier_hidden=8,
    ),
    batch_size=3,
    iterations=6,
    log_every=1,
    sheet_every=3,
    checkpoint_every=2,
)


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 JPEG files of smooth random colours."""
    folder = tmp_path_factory.mktemp("photographs")
    generator = np.random.Generator(np.random.Philox(7))
    for i in range(24):
        coarse = Image.fromarray(generator.integers(0, 256, (4, 5, 3), dtype=np.uint8))
        coarse.resize((100 + i, 80), Image.Resampling.BICUBIC).save(folder / f"photo{i:02d}.jpg", quality=90)
    return folder


@pytest.fixture
def store(photographs: Path, tmp_path: Path) -> ImageStore:
    """A store of them, with neighbours drawn at random."""
    path = tmp_path / "store"
    prepare_store(path, photographs, of_folder(photographs), Recipe())
    store = ImageStore.open(path)
    n = len(store)
    generator = np.random.Generator(np.random.Philox(3))
    others = [[generator.permutation(np.delete(np.arange(n), i))[:10] for _ in range(4)] for i in range(n)]
    distances = np.sort(generator.uniform(1, 100, (n, 4, 10)).astype(np.float32))
    NeighbourTable(np.array(others), distances, 50.0, "random").save(store)
    return store
