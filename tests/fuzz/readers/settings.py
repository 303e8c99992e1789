"""Settings of a run: `config.json`, or a TOML file given to `--config`."""

import json
from pathlib import Path

from lorbms_fast.config import PRESETS, TrainConfig, read_config, to_json
from tests.fuzz.material import as_json
from tests.fuzz.reader import Reader

TOML = b"""
batch_size = 4
epochs = 1.5
[model]
layers = [1, 1, 2, 1, 2]
encoder = "thesis"
[optim]
betas = [0.5, 0.999]
"""
DEEP = 20_000


def seeds() -> list[bytes]:
    """JSON and TOML; bytes that begin with a brace are written as JSON."""
    return [
        to_json(PRESETS["demo"]).encode(),
        TOML,
        b'{"a":' * DEEP,
        b"a = " + b"[" * DEEP,
        b".".join([b"a"] * DEEP) + b" = 1",
        b".".join([b"a"] * 2000) + b" = 1",
        b'{"__dataclass_self__": 1, "self": 2, "args": 3}',
        b'"""',
        b"\xff\xfe{}",
    ]


def read(data: bytes, folder: Path) -> None:
    """Settings over the defaults."""
    path = folder / ("settings.json" if data.lstrip()[:1] in (b"{", b"[", b'"') else "settings.toml")
    path.write_bytes(data)
    config = read_config(path, TrainConfig())
    assert isinstance(config, TrainConfig)
    to_json(config)


READER = Reader("settings", read, seeds, ("settings.",), lambda: [json.loads(to_json(PRESETS["demo"]))], as_json)
