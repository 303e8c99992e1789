"""The `lorbms-fast` command: finds the subcommand, reads its options, and turns users' mistakes into one line."""

import importlib
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

from lorbms_fast import __version__
from lorbms_fast.atomic_io import UNWRITABLE
from lorbms_fast.errors import UserError
from lorbms_fast.threads import choose_threads

# command -> what it does. `lorbms_fast.commands.<command>` holds a function of the same name, imported only when
# it is asked for: `lorbms-fast --help` must not wait for torch.
COMMANDS = {
    "demo": "compose, prepare, neighbours, train, render, transfer: the whole path on shipped photographs",
    "compose": "make a COCO-format and an STL-10-format data set from the shipped photographs",
    "prepare": "turn photos, COCO, tar shards, STL-10 or VOC into an image store",
    "check": "compare a store's files with their checksums",
    "neighbours": "find each quadrant's visually similar images (Algorithm 2)",
    "train": "train LORBMS on a store",
    "search": "find good hyperparameters by training many runs (Ray Tune)",
    "render": "draw mixed scenes from a run (Figure 4.2)",
    "transfer": "move an object from one photo into another (Figure 4.3)",
    "app": "open a local page for a run: transfers by hand, neighbours, curves, sheets",
    "export": "write encoder and decoder as ONNX, safetensors, a PyTorch program and a page for any browser",
    "evaluate": "measure a run as the thesis does: generated images, linear probes, ablation, calibration, report",
    "bench": "time the fast iteration against the reference on this machine",
    "plan": "predict time and memory of training on a GPU",
    "profile": "trace where an iteration's time goes on this machine",
    "info": "print every network's layers, shapes and parameter counts",
    "verify": "compare this installation with the numbers of the author's program",
}
OF_EXTRAS = {"onnx": "export", "onnxruntime": "export", "onnxscript": "export", "ray": "search"}
"""Modules that `train` does not bring, and the extras, named as the commands, that do."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `lorbms-fast ARGUMENTS` (default: those of the process) and exit.

    Exit status: 0 done, 1 a check failed, 2 a mistake in the options or the data, 130 interrupted, 141 nobody reads the
    output any more, as with `| head`.
    """
    _open_standard_streams()
    choose_threads()
    warnings.formatwarning = _warning
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # says that it caches fonts elsewhere without a home
    try:
        try:
            _run(arguments)
        finally:
            sys.stdout.flush()
    except (BrokenPipeError, SystemExit) as ended:
        if isinstance(ended, SystemExit) and not isinstance(ended.__context__, BrokenPipeError):  # rich's way out
            raise
        _discard_output()
        sys.exit(141)
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        _discard_output()
        _fail(f"cannot {f'read or write {error.filename}' if error.filename else 'write the output'}: {error.strerror}")


def _warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Format a warning on one line; that of a library, which names no category, without its place in the code."""
    name = "lorbms-fast" if category is UserWarning else f"{filename}:{lineno}: {category.__name__}"
    return f"{name}: {message}\n"


def _open_standard_streams() -> None:
    """Open the null device for each stream that the caller closed: files would be opened in its place otherwise."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != descriptor:
                os.dup2(nowhere, descriptor)
            setattr(sys, name, open(descriptor, "r" if name == "stdin" else "w"))  # noqa: SIM115, PTH123


def _discard_output() -> None:
    """Send further output to the null device: Python flushes once more when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: Sequence[str] | None) -> None:
    name, *rest = list(sys.argv[1:] if arguments is None else arguments) or [""]
    layers_only = find_spec("tyro") is None
    if layers_only and not name:
        _fail(f"only the layers are installed, no command: {_install('train', 'tyro')}")
    if name in ("", "-h", "--help"):
        print(_help())
        if layers_only:
            print(f"None of them is installed, only the layers: {_install('train', 'tyro')}")
        sys.exit(0)
    if name == "--version":
        print(f"lorbms-fast {__version__}")
        sys.exit(0)
    if name not in COMMANDS:
        _fail(f"'{name}' is not a command: choose one of {', '.join(COMMANDS)}")
    try:
        _call(name, rest)
    except UserError as error:
        _fail(str(error))
    except ModuleNotFoundError as error:
        missing = (error.name or "lorbms_fast").partition(".")[0]
        if missing == "lorbms_fast":
            raise
        _fail(f"'{name}' needs {missing}, which is not installed: {_install(name, missing)}")
    except ImportError as error:  # how Ray Tune says which packages it lacks
        if "some dependencies are missing" not in str(error):
            raise
        _fail(f"'{name}' needs packages that are not installed: {_install(name, 'ray')}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def _call(name: str, arguments: Sequence[str]) -> None:
    os.environ.setdefault("PYDANTIC_ERRORS_INCLUDE_URL", "0")  # which tyro would show in its boxes
    import tyro  # here, not above: where only the layers are installed, neither of the two is
    from pydantic import ValidationError

    from lorbms_fast.config import describe

    _refuse_empty(arguments)
    try:
        tyro.cli(_load(name, arguments), prog=f"lorbms-fast {name}", args=arguments)
    except ValidationError as error:
        _fail(describe(error, as_options=True))
    except SystemExit as ended:  # behind a box of tyro's, which names a part of the settings by its class
        parsing = ended.__context__
        if parsing is None or not isinstance(fault := parsing.__context__, ValidationError):
            raise
        part = str(getattr(parsing, "arg", "")).rpartition("settings.")[2]  # of a command in a command: more before it
        _fail(describe(fault, as_options=True, within=f"{part}." if part else ""))


def _refuse_empty(arguments: Sequence[str]) -> None:
    """Refuse a text of no letters, as a shell makes of a variable that is not set: for a path it is this folder."""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        option, equals, value = argument.partition("=")
        if not argument or (option.startswith("--") and equals and not value):
            where = option or (before if before.startswith("--") else "")
            _fail(f"{where or 'an argument'} is an empty text: is a variable of the shell not set?")


def _install(command: str, missing: str) -> str:
    if missing == "ray" and command != "search":
        extras = "train,cluster"
    elif missing in OF_EXTRAS:
        extras = OF_EXTRAS[missing]
    else:
        extras = f"train,{command}" if command in OF_EXTRAS.values() else "train"
    return f"pip install 'lorbms-fast[{extras}]'"


def _load(name: str, arguments: Sequence[str]) -> Any:
    """Import the command's function and have it check its values; some modules make one for the arguments."""
    module = importlib.import_module(f"lorbms_fast.commands.{name}")
    if hasattr(module, "for_arguments"):
        return module.for_arguments(arguments)
    flowing = importlib.import_module("lorbms_fast.commands.options").flowing
    return importlib.import_module("pydantic").validate_call(flowing(getattr(module, name)))


def _help() -> str:
    commands = [f"  {name:<12}{summary}" for name, summary in COMMANDS.items()]
    lines = ["usage: lorbms-fast COMMAND ... | --version", "", *commands, ""]
    return "\n".join([*lines, "`lorbms-fast COMMAND --help` explains a command's options."])


def _fail(message: str) -> None:
    with suppress(OSError):  # nobody can be told
        print(f"lorbms-fast: {message}", file=sys.stderr, flush=True)
    sys.exit(2)
