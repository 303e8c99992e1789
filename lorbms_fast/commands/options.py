"""What the commands' options have in common: folders that they take by place, and help that flows."""

import re
from collections.abc import Callable
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

RunFolder = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
StoreFolder = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="STORE")]

F = TypeVar("F", bound=Callable[..., Any])


def flowing(command: F) -> F:
    """Join the lines of each argument in a command's docstring: tyro does so elsewhere, but breaks its help here."""
    command.__doc__ = re.sub(r"\n {8,}", " ", cleandoc(command.__doc__ or ""))
    return command
