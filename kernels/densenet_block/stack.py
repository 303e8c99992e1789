"""The stack of maps that the layers of a DenseNet's block share: a matrix with a column for each map."""

from types import ModuleType
from typing import NamedTuple

from torch import Tensor


class Positions(NamedTuple):
    """Rows of a matrix: the positions of N samples of H by W."""

    N: int
    H: int
    W: int

    @classmethod
    def of(cls, x: Tensor) -> "Positions":
        """The positions of maps (N, C, H, W)."""
        return cls(len(x), *x.shape[2:])

    @property
    def rows(self) -> int:
        """M, the number of rows."""
        return self.N * self.H * self.W

    def maps(self, matrix: Tensor) -> Tensor:
        """(M, C) as maps (N, C, H, W) in the same memory."""
        return matrix.view(*self, -1).permute(0, 3, 1, 2)


class Parts(NamedTuple):
    """Columns of the stack."""

    C: int
    growth: int

    def before(self, layer: int) -> slice:
        """Maps that the layer reads."""
        return slice(0, self.C + layer * self.growth)

    def own(self, layer: int) -> slice:
        """Maps that it makes."""
        return slice(self.C + layer * self.growth, self.C + (layer + 1) * self.growth)


class Received(NamedTuple):
    """What maps have received from layers that read them: `directly - constant - (maps - mean) slope`."""

    directly: Tensor
    mean: Tensor
    constant: Tensor
    slope: Tensor

    def by(self, columns: slice) -> tuple[Tensor, Tensor, Tensor]:
        """What some maps have received so far, and layers add to: directly, constant and slope."""
        return self.directly[:, columns], self.constant[columns], self.slope[columns]

    def gradient(self, form: ModuleType, stack: Tensor, columns: slice, factors: Tensor | None = None) -> Tensor:
        """The gradient of some maps, once all layers have sent back, times factors, a row of which is for as many."""
        result = stack.new_empty(len(stack), columns.stop - columns.start)
        line = self.mean[columns], self.constant[columns], self.slope[columns]
        form.less_line(self.directly[:, columns], stack[:, columns], *line, result, factors)
        return result
