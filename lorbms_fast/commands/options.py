"""What the commands' options have in common: folders that they take by place, and help that flows."""

import re
from collections.abc import Callable
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import tyro

RunFolder = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
StoreFolder = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="STORE")]

F = TypeVar("F", bound=Callable[..., Any])


def flowing(command: F) -> F:
    """Join the lines in docstrings, the command's and its settings', where tyro breaks its help.

    It does before the further lines of an argument, and before what begins with no letter, such as a `quotation`.
    """
    command.__doc__ = re.sub(r"\n {8,}|(?<=\S)\n(?=[^\sA-Za-z])", " ", cleandoc(command.__doc__ or ""))
    for kind in get_type_hints(command).values():
        _flowing_fields(kind)
    return command


def _flowing_fields(kind: Any) -> None:
    for name, field in getattr(kind, "__pydantic_fields__", {}).items():
        if field.description:
            kind.__dataclass_fields__[name].metadata = {"help": " ".join(field.description.split())}
        _flowing_fields(field.annotation)
