"""A small folder of photographs, its store, and a model that trains in a blink."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before anything imports torch: processes that share the tests have a thread each.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from lorbms_fast import checkpoint
from lorbms_fast.config import ModelConfig, TrainConfig
from lorbms_fast.dataloader.neighbour_table import NeighbourTable
from lorbms_fast.dataloader.prepare import prepare_store
from lorbms_fast.dataloader.recipes import Recipe
from lorbms_fast.dataloader.sources import of_folder
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.run import Run
from lorbms_fast.training.session import run_training

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


def pytest_configure(config: pytest.Config) -> None:
    """Hide the GPUs, which commands would train on by themselves, from all tests but those that need one."""
    if "gpu" not in config.option.markexpr.split():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


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
    return store_of(photographs, tmp_path / "store")


def store_of(photographs: Path, path: Path, side: int = 64) -> ImageStore:
    """Make a store of a folder of photographs, with neighbours drawn at random."""
    prepare_store(path, photographs, of_folder(photographs), Recipe(), image_size=side)
    store = ImageStore.open(path)
    n = len(store)
    generator = np.random.Generator(np.random.Philox(3))
    others = [[generator.permutation(np.delete(np.arange(n), i))[:10] for _ in range(4)] for i in range(n)]
    distances = np.sort(generator.uniform(1, 100, (n, 4, 10)).astype(np.float32))
    NeighbourTable(np.array(others), distances, 50.0, "random").save(store)
    return store


@pytest.fixture(scope="session")
def trained(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six iterations, never disturbed, that all tests share."""
    folder = tmp_path_factory.mktemp("trained")
    store = store_of(photographs, folder / "store")
    run_training(Run.create(folder / "run", TINY, store.path), store)
    return folder / "run"


@pytest.fixture
def run(trained: Path, store: ImageStore, tmp_path: Path) -> Path:
    """A copy of that run, on a store like its own."""
    copied = shutil.copytree(trained, tmp_path / "run")
    facts = (copied / "run.json").read_text()
    (copied / "run.json").write_text(facts.replace(str(trained.with_name("store")), str(store.path)))
    return copied


def run_of(photographs: Path, folder: Path, name: str = "run") -> Path:
    """Make a run of six iterations beside its store.

    Its codes are made large: so short a training leaves the decoder painting everything grey.
    """
    store = store_of(photographs, folder / "store")
    run = Run.create(folder / name, TINY, store.path)
    run_training(run, store)
    path = run.latest()
    facts, weights = checkpoint.facts_of(path), load_file(path / checkpoint.MODEL)
    larger = {f"enc.last.{part}": 1000 * weights[f"enc.last.{part}"] for part in ("weight", "bias")}
    save_file(weights | larger, path / checkpoint.MODEL)
    checkpoint.seal(path, facts)
    return run.folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium; tests that click are skipped where it or Selenium is missing."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="no Selenium here: pip install selenium")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no Chromium here: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1180,1400"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield started
    started.quit()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of four megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", folder], check=True)
