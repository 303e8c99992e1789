"""Calls of operations, written down as an iteration makes them, and made again on drawn tensors of the same shapes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from lorbms_fast.config import Precision
from lorbms_fast.engine.precision import precision
from lorbms_fast.kernels import use_impl
from lorbms_fast.kernels._common.layout import is_channels_last
from lorbms_fast.kernels._common.operation import Key, key_of, watched

SMALL = 4096
"""Values up to which a tensor is kept as it is: masks, rows, logits, scalars."""
LARGEST = 16 << 20
"""Values that are drawn of a larger tensor of whole numbers, as a store of images is."""


@dataclass(frozen=True)
class Spec:
    """A tensor but for its values, which are kept where they are few."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    channels_last: bool
    requires_grad: bool
    value: Tensor | None

    @classmethod
    def of(cls, x: Tensor) -> "Spec":
        """Describe a tensor."""
        keep = not x.is_meta and (x.numel() <= SMALL or (not x.is_floating_point() and x.dtype != torch.uint8))
        value = x.detach().to("cpu", copy=True) if keep else None
        return cls(tuple(x.shape), x.dtype, is_channels_last(x), x.requires_grad, value)

    def drawn(self, generator: torch.Generator, scaled: bool, moved: bool) -> Tensor:
        """Draw a tensor; one that is `scaled` keeps the size of what it is multiplied with.

        Of one whose values are kept, those of floating point are `moved` by a percent or so.
        """
        if self.value is not None:
            value = self.value.to(generator.device)
            if not moved or not value.is_floating_point():
                return value
            return value * (1 + 0.01 * torch.randn(self.shape, generator=generator, device=generator.device)).to(value)
        if not self.dtype.is_floating_point:
            each = max(1, torch.Size(self.shape[1:]).numel())
            shape = (min(self.shape[0], max(1, LARGEST // each)), *self.shape[1:])
            return torch.randint(256, shape, generator=generator, device=generator.device).to(self.dtype)
        x = torch.randn(self.shape, generator=generator, device=generator.device)
        if scaled and len(self.shape) > 1:
            x /= x[0].numel() ** 0.5
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return x.to(self.dtype).contiguous(memory_format=layout)


@dataclass(frozen=True)
class Made:
    """An argument that is made of tensors, in a form."""

    make: Callable[..., Any]
    tensors: tuple[Spec, ...]


@dataclass(frozen=True)
class Call:
    """A call of an operation, which takes `impl`."""

    operation: Callable[..., Any]
    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    """Positional and by name; tensors as `Spec`, what is made of them as `Made`."""
    arithmetic: Precision
    differentiated: bool
    """Gradients were wanted."""

    @property
    def specs(self) -> list[Spec]:
        """All its tensors, in order."""
        leaves = tree_leaves(self.arguments)
        tensors = [leaf.tensors if isinstance(leaf, Made) else (leaf,) for leaf in leaves]
        return [spec for of_leaf in tensors for spec in of_leaf if isinstance(spec, Spec)]

    @property
    def batch(self) -> int:
        """Samples of its first argument."""
        return self.specs[0].shape[0] if self.specs[0].shape else 1

    @property
    def label(self) -> str:
        """Name of the operation, and the shape of a sample of its first argument."""
        sides = " x ".join(map(str, self.specs[0].shape[1:]))
        return f"{self.operation.__name__}{sides and f' {sides}'}"

    def drawn(self, device: torch.device, draw: int = 0) -> list[Tensor]:
        """Draw its tensors, the same for the same number of a draw."""
        generator = torch.Generator(device).manual_seed(draw)
        found = [spec.drawn(generator, scaled=bool(i), moved=bool(draw)) for i, spec in enumerate(self.specs)]
        if found[0].shape != self.specs[0].shape:  # of fewer images than the store has
            found[1:] = [x % len(found[0]) if x.dtype == torch.int64 else x for x in found[1:]]
        return found

    def leaves(self, tensors: Sequence[Tensor], exact: bool = False) -> list[Tensor]:
        """Copy drawn tensors for one run of the call; `exact` in float64."""
        return [
            (x.double() if exact and x.is_floating_point() else x).clone().requires_grad_(spec.requires_grad)
            for x, spec in zip(tensors, self.specs, strict=True)
        ]

    def made(self, leaves: Sequence[Tensor], form: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Make the arguments of tensors; what is made of several, for a form."""
        given = iter(leaves)

        def rebuilt(leaf: Any) -> Any:
            if isinstance(leaf, Made):
                return leaf.make([next(given) for _ in leaf.tensors], form.partition(":")[0])
            return next(given) if isinstance(leaf, Spec) else leaf

        arguments: tuple[tuple[Any, ...], dict[str, Any]] = tree_map(rebuilt, self.arguments)
        return arguments

    def run(
        self,
        leaves: Sequence[Tensor],
        form: str,
        exact: bool = False,
        probes: list[Tensor] | None = None,
        draw: int = 0,
    ) -> list[Tensor]:
        """Make the call in a form; then take the gradients of a random linear function of what it returns.

        Products are not TF32's if `exact`. An empty list of `probes`, the function's coefficients, is filled for the
        next run, by the number of the draw. Returns what the call returns, the tensors that it may change, gradients.
        """
        device, probes = leaves[0].device, [] if probes is None else probes
        with precision(device, "float32" if exact else self.arithmetic), torch.set_grad_enabled(self.differentiated):
            args, kwargs = self.made(leaves, form)
            outputs = [y for y in tree_leaves(self.operation(*args, **kwargs, impl=form)) if isinstance(y, Tensor)]
            found = [y.detach() for y in outputs] + self._changed(leaves)
            moving, moved = [y for y in outputs if y.requires_grad], [leaf for leaf in leaves if leaf.requires_grad]
            if not moving or not moved:
                return found
            if not probes:
                generator = torch.Generator(device).manual_seed(1 + draw)
                drawn = [torch.randn(y.shape, generator=generator, device=device) for y in moving]
                probes += [  # in the outputs' layout, as from what comes next; the same numbers in all dtypes
                    torch.empty_like(y, dtype=x.dtype).copy_(x.bfloat16()) for x, y in zip(drawn, moving, strict=True)
                ]
            weighted = [probe.to(y) for probe, y in zip(probes, moving, strict=True)]
            gradients = torch.autograd.grad(moving, moved, weighted, allow_unused=True)
        return found + [g for g in gradients if g is not None]

    def _changed(self, leaves: Sequence[Tensor]) -> list[Tensor]:
        """List the tensors that the call may change in place: none that is large has this done to it."""
        found = [leaf for leaf, spec in zip(leaves, self.specs, strict=True) if spec.value is not None]
        return [leaf.detach().clone() for leaf in found if leaf.is_floating_point() and not leaf.requires_grad]


Families = dict[Key, list[Call]]
"""Calls by what the dispatcher knows them by: all but the number of samples."""


def recorded(works: Iterable[Callable[[], object]], device: torch.device) -> Families:
    """Do some works in the fused form and write down each kind of call once."""
    found: Families = {}
    seen = set()

    def note(operation: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        arguments = tree_map(_spec, (args, kwargs), is_leaf=lambda leaf: hasattr(leaf, "recipe"))
        call = Call(operation, arguments, _arithmetic(device), torch.is_grad_enabled())
        key = key_of(operation.__name__, args, kwargs)
        kind = key, call.differentiated, *((spec.shape, spec.requires_grad) for spec in call.specs)
        if kind not in seen:
            seen.add(kind)
            found.setdefault(key, []).append(call)

    with use_impl("fused"), watched(note):
        for work in works:
            work()
    return found


def _spec(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return Spec.of(leaf)
    if hasattr(leaf, "recipe"):
        make, tensors = leaf.recipe()
        return Made(make, tuple(map(Spec.of, tensors)))
    return leaf


def _arithmetic(device: torch.device) -> Precision:
    if torch.is_autocast_enabled(device.type):
        return "bfloat16" if torch.get_autocast_dtype(device.type) == torch.bfloat16 else "float16"
    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "float32"
