"""Checkpoints of a run: everything needed to go on as if nothing had happened, in formats that hold no code.

`RUN/checkpoints/00001000/` holds `model.safetensors` (parameters, u vectors, running averages),
`optimizers.safetensors` (`<optimizer>/<parameter>/<exp_avg | exp_avg_sq | step>`) and `state.json`. Batches are
functions of the iteration's number and nothing else is random, so there are no generator states to keep.
"""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

    def save(self, iteration: int, networks: Networks, optimizers: Optimizers) -> Path:
        """Write the checkpoint after `iteration` iterations, and drop the oldest beyond `keep_checkpoints`."""
        path = self.folder / "checkpoints" / f"{iteration:08d}"
        if not path.exists():
            with whole_folder(path) as partial:
                save_file(_contiguous(networks.state_dict()), partial / "model.safetensors")
                save_file(
                    _contiguous(dict(_optimizer_tensors(networks, optimizers))), partial / "optimizers.safetensors"
                )
                (partial / "state.json").write_text(json.dumps({"iteration": iteration}) + "\n")
        for old in self.checkpoints()[: -self.config.keep_checkpoints]:
            shutil.rmtree(old)
        return path

    def restore(self, networks: Networks, optimizers: Optimizers) -> int:
        """Load the newest checkpoint into networks and optimizers, and return its iteration.

        Raises:
            UserError: a file is missing, damaged or of another model.
        """
        path = self.latest()
        load_weights(networks, path / "model.safetensors")
        _restore_optimizers(networks, optimizers, path / "optimizers.safetensors")
        return int(_read_json(path / "state.json", f"{path / 'state.json'} is missing or damaged")["iteration"])


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
        for parameter_name, parameter in parameters:
            for key, value in optimizer.state[parameter].items():
                yield f"{name}/{parameter_name}/{key}", value


def _restore_optimizers(networks: Networks, optimizers: Optimizers, path: Path) -> None:
    tensors = _read_tensors(path)
    for name, optimizer, parameters in _optimized(networks, optimizers):
        for parameter_name, parameter in parameters:
            prefix = f"{name}/{parameter_name}"
            step, *moments = (tensors.get(f"{prefix}/{key}") for key in ("step", "exp_avg", "exp_avg_sq"))
            if step is None or any(moment is None or moment.shape != parameter.shape for moment in moments):
                raise UserError(f"{path} has no fitting '{prefix}': it belongs to another model")
            # Laid out as the parameter, over which the optimizer runs as it lies in memory.
            exp_avg, exp_avg_sq = (torch.empty_like(parameter.data).copy_(m) for m in moments if m is not None)
            optimizer.state[parameter] = {"step": step, "exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}
            optimizer.param_groups[0]["t"] = int(step.item())


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
