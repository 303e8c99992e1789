"""States of networks and optimizers, each a folder of files that hold no code and vouch for each other.

`model.safetensors` has parameters, u vectors and running averages, `optimizers.safetensors` Adam's moments
(`<optimizer>/step`, `<optimizer>/<parameter>/<exp_avg | exp_avg_sq>`), `state.json` format, facts, the SHA-256 of both,
and, under `seal`, that of everything else it says.
"""

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import cache, lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lorbms_fast.atomic_io import atomic_folder, remove_whole, write_json
from lorbms_fast.config import ModelConfig, merged
from lorbms_fast.dataloader.store import checksum
from lorbms_fast.differences import differences, of_another_version
from lorbms_fast.errors import UserError
from lorbms_fast.optimizers import Optimizers
from lorbms_fast.types import Networks

FORMAT = {"format": "lorbms-fast checkpoint", "version": 3}
_BEFORE = FORMAT | {"version": 2}
"""Format that counted batches, of any size, instead of images: its networks can be used, its training not resumed."""
MODEL, OPTIMIZERS, STATE = "model.safetensors", "optimizers.safetensors", "state.json"
_SCALER = ("scale", "_growth_tracker")
_SHOWN = 8
"""Max. number of misfitting tensors that are named."""


class Damaged(UserError):
    """A file that is missing, or is not what was written."""


def write(folder: Path, networks: Networks, optimizers: Optimizers, facts: Mapping[str, Any]) -> None:
    """Write a checkpoint's files, with facts that JSON can hold, into a folder that its caller then names."""
    save_tensors(networks.state_dict(), folder / MODEL)
    save_tensors(dict(_optimizer_tensors(networks, optimizers)), folder / OPTIMIZERS)
    seal(folder, facts)


def size(networks: Networks, optimizers: Optimizers) -> int:
    """Estimate the bytes of a checkpoint."""
    tensors = [*networks.state_dict().values(), *dict(_optimizer_tensors(networks, optimizers)).values()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def seal(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write `state.json` for the files that are there, in place of an older one."""
    state = FORMAT | dict(facts) | {"sha256": {name: checksum(folder / name) for name in (MODEL, OPTIMIZERS)}}
    write_json(folder / STATE, state | {"seal": _seal(state)})


def facts_of(folder: Path) -> dict[str, Any]:
    """Read what was noted beside the tensors, and their files' checksums.

    Raises Damaged where it is missing or not what was written, else UserError with each difference between versions.
    """
    path = folder / STATE
    try:
        state = json.loads(path.read_text())
        if not isinstance(state, dict):
            raise ValueError("no table")
    except (OSError, ValueError, RecursionError) as error:
        raise Damaged(f"{path} is missing or damaged ({error})") from error
    found = {name: state.get(name, "absent") for name in FORMAT}
    if found not in (FORMAT, _BEFORE):
        raise of_another_version(path, found, FORMAT)
    if state.pop("seal", None) != _seal(state):
        raise Damaged(f"{path} is damaged: its content does not fit its seal")
    sums = state.get("sha256")
    if not isinstance(sums, dict) or not {MODEL, OPTIMIZERS} <= sums.keys():
        raise Damaged(f"{path} is damaged: it lacks checksums")
    return {name: value for name, value in state.items() if name not in FORMAT}


def check(folder: Path) -> dict[str, Any]:
    """Read all files once, compare them with their checksums, and return the facts; errors as of `facts_of`."""
    facts = facts_of(folder)
    if not isinstance(facts.get("model"), dict):
        raise Damaged(f"{folder / STATE} is damaged: it does not say of which model")
    for name in (MODEL, OPTIMIZERS):
        try:
            found = checksum(folder / name)
        except OSError as error:
            raise Damaged(f"{folder / name} cannot be read ({error.strerror})") from error
        if found != facts["sha256"][name]:
            raise Damaged(f"{folder / name} is damaged: its content does not fit its checksum")
    return facts


def load(networks: nn.Module, folder: Path) -> None:
    """Fill networks from a checkpoint, any of a run's; UserError where its files are not what was written."""
    try:
        _checked(folder)
    except Damaged as error:
        raise UserError(f"{error}: remove {folder} to do without") from error
    load_weights(networks, folder / MODEL)


def restore(folder: Path, networks: Networks, optimizers: Optimizers) -> None:
    """Fill networks and optimizers, in place; UserError where a file is missing, damaged, or of another model."""
    load_weights(networks, folder / MODEL)
    _restore_optimizers(networks, optimizers, folder / OPTIMIZERS)


def finished(folder: Path) -> list[Path]:
    """List a folder's finished checkpoints, oldest first; each is named by its iteration."""
    found = (path for path in folder.glob("*") if re.fullmatch(r"\d{8,}", path.name) and path.is_dir())
    return sorted(found, key=lambda path: int(path.name))


def newest(folder: Path, model: ModelConfig) -> Path:
    """Find a folder's newest checkpoint whose files are what was written; damaged newer ones are told of.

    Raises UserError if there is none yet, or the newest that can be read is of another version or model.
    """
    damaged = []
    for path in reversed(finished(folder)):
        try:
            facts = _checked(path)
        except (Damaged, FileNotFoundError) as error:
            if not path.exists():  # the run is training, and has newer ones
                return newest(folder, model)
            damaged.append(str(error))
            continue
        begun = merged(asdict(ModelConfig()), facts["model"])
        if differing := list(differences(begun, asdict(model), "model")):
            raise UserError(f"{path} belongs to another model: {'; '.join(differing)}")
        for message in damaged:
            _tell_once(f"lorbms-fast: {message}: using the checkpoint before it, {path}")
        return path
    if damaged:
        raise UserError(
            f"{folder.parent} has no checkpoint that is whole ({'; '.join(damaged)}): "
            "copy one back there if you have it elsewhere, or train again with another --out"
        )
    raise UserError(f"{folder.parent} has no checkpoint yet: train it first")


def best(folder: Path) -> Path | None:
    """Find a folder's checkpoint with the lowest L_rec_hat; None where none has such a number."""
    found = [(error, path) for path in finished(folder) if (error := _L_rec_hat(path)) is not None]
    return min(found)[1] if found else None


def save(folder: Path, iteration: int, networks: Networks, optimizers: Optimizers, facts: Mapping[str, Any]) -> Path:
    """Write the checkpoint of an iteration into a folder; those of it and of later ones are set aside."""
    for abandoned in finished(folder):
        if int(abandoned.name) >= iteration:
            aside = abandoned.with_name(f"{abandoned.name}.aside")  # which is no checkpoint's name
            if aside.exists():
                remove_whole(aside)
            abandoned.rename(aside)
    with atomic_folder(folder / f"{iteration:08d}") as partial:
        write(partial, networks, optimizers, facts)
    return folder / f"{iteration:08d}"


def retain(folder: Path, count: int) -> None:
    """Remove a folder's checkpoints beyond the newest `count`, but not the best."""
    kept = {best(folder), *finished(folder)[-count:]}
    for old in finished(folder):
        if old not in kept:
            remove_whole(old)


def load_weights(networks: nn.Module, path: Path) -> None:
    """Fill networks from a safetensors file; UserError where it is missing, damaged, or of other layers or sizes."""
    weights = _read_tensors(path)
    expected = networks.state_dict()
    _compare_shapes(path, weights, expected)
    networks.load_state_dict({name: weights[name] for name in expected})


def _compare_shapes(path: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    if differing := list(differences(_shapes(found), _shapes(expected))):
        more = f"; and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
        raise UserError(f"{path} belongs to another model: {'; '.join(differing[:_SHOWN])}{more}")


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _optimizer_tensors(networks: Networks, optimizers: Optimizers) -> Iterator[tuple[str, Tensor]]:
    names = {parameter: name for name, parameter in networks.named_parameters()}
    for name, optimizer in vars(optimizers).items():
        yield f"{name}/step", optimizer.t
        if optimizer.scaler.is_enabled():
            yield f"{name}/scaler", torch.tensor([optimizer.scaler.state_dict()[key] for key in _SCALER])
        for parameter in (p for group in optimizer.param_groups for p in group["params"]):
            for key, value in optimizer.state[parameter].items():
                yield f"{name}/{names[parameter]}/{key}", value


def _restore_optimizers(networks: Networks, optimizers: Optimizers, path: Path) -> None:
    found = _read_tensors(path)
    scalers = {name: found.pop(f"{name}/scaler", None) for name in vars(optimizers)}
    expected = {n: t for n, t in _optimizer_tensors(networks, optimizers) if not n.endswith("/scaler")}
    _compare_shapes(path, found, expected)
    for name, tensor in expected.items():
        tensor.copy_(found[name])
    for name, optimizer in vars(optimizers).items():
        if optimizer.scaler.is_enabled() and (scaler := scalers[name]) is not None:
            kept = dict(zip(_SCALER, scaler.tolist(), strict=True))
            optimizer.scaler.load_state_dict(optimizer.scaler.state_dict() | kept)


def save_tensors(tensors: Mapping[str, Tensor], path: Path, facts: dict[str, str] | None = None) -> None:
    """Write a safetensors file; OSError where the system refuses, for want of room on a disk say."""
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path, facts)
    except SafetensorError as error:
        if (number := re.search(r"os error (\d+)", str(error))) is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error  # a full disk, most likely


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise Damaged(f"{path} is missing or damaged ({error})") from error


def _seal(state: Mapping[str, Any]) -> str:
    return sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _L_rec_hat(path: Path) -> float | None:
    try:
        found = facts_of(path).get("L_rec_hat")
    except UserError:
        return None
    return found if isinstance(found, float) else None


def _checked(path: Path) -> dict[str, Any]:
    """Run `check` once for files that stay as they are: a page asks for the newest checkpoint all the time."""
    files = ((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in path.iterdir())
    return _checked_once(path, tuple(sorted(files)))  # names, sizes and times change when files do


@lru_cache(maxsize=64)
def _checked_once(path: Path, stamp: tuple[tuple[str, int, int], ...]) -> dict[str, Any]:
    return check(path)


@cache
def _tell_once(message: str) -> None:
    print(message, file=sys.stderr)
