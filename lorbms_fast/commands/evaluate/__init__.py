"""`lorbms-fast evaluate`: the thesis's measurements, one subcommand a table."""

from collections.abc import Sequence
from typing import Annotated, Any, Union

import tyro
from pydantic import validate_call

from lorbms_fast.commands.evaluate.ablation import ablation
from lorbms_fast.commands.evaluate.calibration import calibration
from lorbms_fast.commands.evaluate.generation import generation
from lorbms_fast.commands.evaluate.linear import linear
from lorbms_fast.commands.evaluate.report import report
from lorbms_fast.commands.evaluate.scenes import scenes
from lorbms_fast.commands.options import flowing

SUBCOMMANDS = (generation, linear, ablation, calibration, scenes, report)


def for_arguments(arguments: Sequence[str]) -> Any:
    """Make one type of all subcommands, which tyro reads a command line for."""
    return Union[  # noqa: UP007  # of as many as there are
        tuple(
            Annotated[Any, tyro.conf.subcommand(made.__name__, constructor=validate_call(flowing(made)))]
            for made in SUBCOMMANDS
        )
    ]
