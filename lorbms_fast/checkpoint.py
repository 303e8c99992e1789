"""Checkpoints of a run: everything needed to go on as if nothing had happened, in formats that hold no code.

`RUN/checkpoints/00001000/` holds `model.safetensors` (parameters, u vectors, running averages),
`optimizers.safetensors` (`<optimizer>/step`, `<optimizer>/<parameter>/<exp_avg | exp_avg_sq>`) and `state.json` (how
far it came). Batches are functions of their number and nothing else is random: there are no generator states to keep.
"""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lorbms_fast.config import TrainConfig, read_config, to_json
from lorbms_fast.engine.optimizers import Adam, Optimizers
from lorbms_fast.errors import UserError
from lorbms_fast.files import whole_file, whole_folder
from lorbms_fast.models import Networks, build

FORMAT = {"format": "lorbms-fast run", "version": 1}
_SCALER = ("scale", "_growth_tracker")


class Progress(NamedTuple):
    """How far a run came."""

    iteration: int = 0
    """Finished iterations."""
    batches: int = 0
    """Batches that they took: as many an iteration as there were processes, four times that with fresh ones."""


BEGINNING = Progress()


@dataclass(frozen=True)
class Run:
    """A run's folder: its settings, the store it learns from and its checkpoints."""

    folder: Path
    config: TrainConfig
    store: Path

    @classmethod
    def create(cls, folder: Path, config: TrainConfig, store: Path) -> "Run":
        """Make a new run's folder.

        Raises:
            UserError: there is one already.
        """
        if (folder / "run.json").exists():
            raise UserError(f"{folder} is a run already: continue it with --resume {folder}, or choose another --out")
        with whole_file(folder / "config.json") as partial:
            partial.write_text(to_json(config) + "\n")
        with whole_file(folder / "run.json") as partial:
            partial.write_text(json.dumps(FORMAT | {"store": str(store.resolve())}, indent=2) + "\n")
        return cls(folder, config, store)

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """Open an existing run.

        Raises:
            UserError: it is none, or one of another format.
        """
        facts = _read_json(folder / "run.json", f"{folder} is not a run: name a folder that `lorbms-fast train` wrote")
        if {name: facts.get(name) for name in FORMAT} != FORMAT:
            raise UserError(f"{folder} has format {facts.get('format')!r} version {facts.get('version')}, not {FORMAT}")
        return cls(folder, read_config(folder / "config.json", TrainConfig()), Path(facts["store"]))

    def checkpoints(self) -> list[Path]:
        """Finished checkpoints, oldest first."""
        return sorted(path for path in self.folder.glob("checkpoints/*") if re.fullmatch(r"\d{8,}", path.name))

    def latest(self) -> Path:
        """The newest checkpoint.

        Raises:
            UserError: there is none yet.
        """
        if not (found := self.checkpoints()):
            raise UserError(f"{self.folder} has no checkpoint yet: train it first")
        return found[-1]

    def save(self, progress: Progress, networks: Networks, optimizers: Optimizers) -> Path:
        """Write the checkpoint of this progress, and drop the oldest beyond `keep_checkpoints`."""
        path = self.folder / "checkpoints" / f"{progress.iteration:08d}"
        if not path.exists():
            with whole_folder(path) as partial:
                save_file(_contiguous(networks.state_dict()), partial / "model.safetensors")
                save_file(
                    _contiguous(dict(_optimizer_tensors(networks, optimizers))), partial / "optimizers.safetensors"
                )
                (partial / "state.json").write_text(json.dumps(progress._asdict()) + "\n")
        for old in self.checkpoints()[: -self.config.keep_checkpoints]:
            shutil.rmtree(old)
        return path

    def restore(self, networks: Networks, optimizers: Optimizers) -> Progress:
        """Load the newest checkpoint into networks and optimizers, and say how far it came.

        Raises:
            UserError: a file is missing, damaged or of another model.
        """
        path = self.latest()
        load_weights(networks, path / "model.safetensors")
        _restore_optimizers(networks, optimizers, path / "optimizers.safetensors")
        damaged = f"{path / 'state.json'} is missing or damaged"
        state = _read_json(path / "state.json", damaged)
        try:
            return Progress(int(state["iteration"]), int(state["batches"]))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(damaged) from error


def load_networks(folder: Path, device: torch.device | str = "cpu") -> Networks:
    """The networks of a run's newest checkpoint, for evaluation.

    Args:
        folder: the run.
        device: where to put them.
    """
    run = Run.open(folder)
    networks = build(run.config.model, run.config.impl)
    load_weights(networks, run.latest() / "model.safetensors")
    return networks.to(device).eval()


def load_weights(networks: nn.Module, path: Path) -> None:
    """Fill networks from a safetensors file.

    Raises:
        UserError: it is missing, damaged, or of a model with other layers or sizes; the first difference is named.
    """
    weights = _read_tensors(path)
    expected = networks.state_dict()
    for name in expected.keys() | weights.keys():
        if name not in weights or name not in expected:
            where = "lacks" if name not in weights else "has an unknown"
            raise UserError(f"{path} {where} '{name}': it belongs to another model")
        if weights[name].shape != expected[name].shape:
            found, wanted = tuple(weights[name].shape), tuple(expected[name].shape)
            raise UserError(f"{path}: '{name}' is {found}, not {wanted}: it belongs to another model")
    networks.load_state_dict(weights)


def _optimizer_tensors(networks: Networks, optimizers: Optimizers) -> Iterator[tuple[str, Tensor]]:
    for name, optimizer, parameters in _optimized(networks, optimizers):
        yield f"{name}/step", optimizer.t
        if optimizer.scaler.is_enabled():
            yield f"{name}/scaler", torch.tensor([optimizer.scaler.state_dict()[key] for key in _SCALER])
        for parameter_name, parameter in parameters:
            for key, value in optimizer.state[parameter].items():
                yield f"{name}/{parameter_name}/{key}", value


def _restore_optimizers(networks: Networks, optimizers: Optimizers, path: Path) -> None:
    tensors = _read_tensors(path)

    def restore(name: str, into: Tensor) -> None:
        if (found := tensors.get(name)) is None or found.shape != into.shape:
            raise UserError(f"{path} has no fitting '{name}': it belongs to another model")
        into.copy_(found)

    for name, optimizer, parameters in _optimized(networks, optimizers):
        restore(f"{name}/step", optimizer.t)
        if optimizer.scaler.is_enabled() and (scaler := tensors.get(f"{name}/scaler")) is not None:
            kept = dict(zip(_SCALER, scaler.tolist(), strict=True))
            optimizer.scaler.load_state_dict(optimizer.scaler.state_dict() | kept)
        for parameter_name, parameter in parameters:
            for key, value in optimizer.state[parameter].items():
                restore(f"{name}/{parameter_name}/{key}", value)


def _optimized(
    networks: Networks, optimizers: Optimizers
) -> Iterator[tuple[str, Adam, list[tuple[str, nn.Parameter]]]]:
    names = {id(parameter): name for name, parameter in networks.named_parameters()}
    for name, optimizer in vars(optimizers).items():
        yield name, optimizer, [(names[id(p)], p) for group in optimizer.param_groups for p in group["params"]]


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is missing or damaged ({error}): remove its folder to use the one before") from error


def _read_json(path: Path, otherwise: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(otherwise) from error
    if not isinstance(content, dict):
        raise UserError(otherwise)
    return content
