"""A run that somebody hands over: `run.json`, `config.json`, `state.json` and the log, as one document of four.

The seal of `state.json` and the checksums in it are put right, as a stranger could.
"""

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lorbms_fast import checkpoint
from lorbms_fast.config import OptimConfig, TrainConfig
from lorbms_fast.models import build
from lorbms_fast.optimizers import Optimizers
from lorbms_fast.rendering.curves import curves
from lorbms_fast.run import Progress, Run, load_networks
from lorbms_fast.types import StepMetrics
from tests.fuzz.material import as_json
from tests.fuzz.reader import Reader
from tests.fuzz.readers.weights import SMALL

CHECKPOINT = "checkpoints/00000001"
PARTS = ("run.json", "config.json", f"{CHECKPOINT}/{checkpoint.STATE}", "metrics.jsonl")


def read(data: bytes, folder: Path) -> None:
    """Open the run, load its networks for use and to go on, plot its log."""
    for name, content in _tensors().items():
        (folder / CHECKPOINT).mkdir(parents=True, exist_ok=True)
        (folder / CHECKPOINT / name).write_bytes(content)
    for name, content in _contents(data).items():
        (folder / name).write_bytes(content)
    run = Run.open(folder)
    load_networks(folder)
    networks = build(run.config.model, run.config.impl)
    progress = run.restore(networks, Optimizers.of(networks, run.config.optim))
    assert all(isinstance(number, int) for number in progress)
    curves(folder / PARTS[3])


def _contents(data: bytes) -> dict[str, bytes]:
    """Content of the parts; bytes that are no document of four are `run.json`'s."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        return {PARTS[0]: data}
    return {name: _written(name, document[name]) for name in PARTS if name in document}


def _written(name: str, part: Any) -> bytes:
    if name == PARTS[2] and isinstance(part, dict):
        part = {key: value for key, value in part.items() if key != "seal"}
        part |= {"seal": checkpoint._seal(part)}
    if name == PARTS[3] and isinstance(part, list):
        return b"".join(as_json(line) + b"\n" for line in part)
    return as_json(part)


@cache
def _tensors() -> dict[str, bytes]:
    return {name: content for name, content in _files().items() if name.endswith(".safetensors")}


def _document() -> dict[str, Any]:
    files = _files()
    log = [{"iteration": i + 1} | dict.fromkeys(StepMetrics.names(), 0.5) for i in range(3)]
    return {name: json.loads(files[Path(name).name]) for name in PARTS[:3]} | {PARTS[3]: log}


@cache
def _files() -> dict[str, bytes]:
    """Name -> content of every file of a run and its checkpoint."""
    with TemporaryDirectory() as temporary:
        folder = Path(temporary, "run")
        run = Run.create(folder, TrainConfig(model=SMALL), Path(temporary, "store"))
        networks = build(SMALL, "fast")
        run.save(Progress(1, 1), networks, Optimizers.of(networks, OptimConfig()))
        return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


READER = Reader(
    "run",
    read,
    lambda: [as_json(_document())],
    ("stranger-",),
    lambda: [_document()],
    as_json,
)
