"""Loading strangers' weights without running their code."""

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lorbms_fast.errors import UserError, one_line


def read_checkpoint(path: Path) -> Any:
    """Read a torch checkpoint on the CPU; UserError where it is damaged or would need code to be loaded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles that torch would have written otherwise
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: check the path") from error
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} cannot be loaded as weights (it holds more than tensors and plain values, so loading could run "
            "a stranger's code): ask its author for a state_dict"
        ) from error
    except Exception as error:  # the little machine that unpickles fails in every way on a stranger's program
        reason = ": ".join(part for part in (type(error).__name__, one_line(str(error).partition("\n")[0])) if part)
        raise UserError(f"{path} cannot be loaded as weights ({reason}): check that it is the right file") from error


def fill(network: nn.Module, state: Any, path: Path) -> None:
    """Load a state dict, but what a network does not know; UserError with the first missing or misshapen entries."""
    # Files from before torch 0.4 do not count batch norm's batches, and evaluation does not read the count.
    expected = {name: v for name, v in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    found = state if isinstance(state, dict) else {}
    missing = [name for name in expected if not isinstance(found.get(name), Tensor)]
    if missing:
        raise UserError(f"{path} lacks {len(missing)} of {len(expected)} weights, e.g. '{missing[0]}': another model's")
    for name, value in expected.items():
        if found[name].shape != value.shape:
            raise UserError(
                f"{path}: '{name}' is {tuple(found[name].shape)}, not {tuple(value.shape)}: another model's"
            )
    network.load_state_dict({name: found[name] for name in expected}, strict=False)
