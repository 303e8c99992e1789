"""The branches of an iteration (`engine.branches`), as they are told apart on a CPU, which runs them in turn."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch._C._autograd import _get_sequence_nr

from lorbms_fast.engine import fast


class Branch(NamedTuple):
    """One of two branches that a GPU may run side by side."""

    fork: int
    """Number of the place where they part; a backward parts them once more."""
    aside: bool


class Branches:
    """Tells to which branch belongs what runs: forward by who called it, backward by the number of autograd's node."""

    def __init__(self) -> None:
        self._now: Branch | None = None
        self._nodes: dict[range, Branch] = {}
        self._forks = 0

    def __call__(self) -> Branch | None:
        """Find the branch of what runs now; None where there is but one."""
        node = torch._C._current_autograd_node()
        if node is None:
            return self._now
        number = node._sequence_nr()
        return next((branch for nodes, branch in self._nodes.items() if number in nodes), None)

    @contextmanager
    def told_apart(self) -> Iterator[None]:
        """Watch the iterations inside the block."""
        with patch.object(fast, "concurrently", self._in_turn):
            yield

    def _in_turn(self, here: Callable[[], Any], aside: Callable[[], Any], device: torch.device) -> tuple[Any, Any]:
        fork, self._forks = self._forks, self._forks + 2
        return self._run(here, Branch(fork, False)), self._run(aside, Branch(fork, True))

    def _run(self, work: Callable[[], Any], branch: Branch) -> Any:
        self._now, first = branch, _get_sequence_nr()
        try:
            return work()
        finally:
            self._now = None
            self._nodes[range(first, _get_sequence_nr())] = branch._replace(fork=branch.fork + 1)
