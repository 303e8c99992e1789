"""All spectral norms of a network together: `torch.nn.utils.spectral_norm` and that of its parametrizations.

Torch iterates for each weight when its layer runs, some ten small operations each. Here a hook of the smallest module
that holds all of them iterates for all before it runs. A layer takes its own vectors when it comes to it, so that one
that does not run, or runs twice, or is called without the others, keeps the vectors that it would have had. Gradients
read each weight twice, where torch's operations read and write it six times.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.spectral_norm import SpectralNorm

from lorbms_fast.kernels._common.dispatch import transformed
from lorbms_fast.kernels.accelerate.report import Finding
from lorbms_fast.kernels.accelerate.rules.devices import not_the_cpu
from lorbms_fast.kernels.accelerate.swapping import become, restored
from lorbms_fast.kernels.spectral_norm.fused import Vectors, divide, power_iteration

FEW = 1 << 16
"""Values of a weight, in the mean over a network, with fewer of which torch's own is quicker on a CPU.

Forward and backward of convolutions of one position were 0.90 to 0.95 times as fast with 37,000, with 83,000 0.96 to
1.01, with 147,000 1.00 to 1.07 and with 230,000 to 590,000 1.07 to 1.7 (one thread).
"""
_PREPARED = "_prepared_vectors"


class JointSpectralNorm(_SpectralNorm):
    """A parametrization of torch's that takes vectors which were made together with others'."""

    def forward(self, weight: Tensor) -> Tensor:
        """Divide a weight by its largest singular value."""
        if not _takes(weight, self.dim):
            return super().forward(weight)
        if not self.training:
            return _divided(weight, _kept(weight, self._u, self._v))
        made = _made(_Member(self, weight, self._v, u_first=False))
        _keep((self._u, self._v), made, weight)
        return _divided(weight, made)


class JointSpectralNormHook(SpectralNorm):
    """The hook of `torch.nn.utils.spectral_norm`, in the same way."""

    def compute_weight(self, module: nn.Module, do_power_iteration: bool) -> Tensor:
        """Divide a module's weight by its largest singular value."""
        weight, u, v = (getattr(module, self.name + of) for of in ("_orig", "_u", "_v"))
        if not _takes(weight, self.dim):
            return super().compute_weight(module, do_power_iteration)
        if not do_power_iteration:
            return _divided(weight, _kept(weight, u, v))
        made = _made(_Member(self, weight, u, u_first=True))
        _keep((u, v), made, weight)
        return _divided(weight, made)


def spectral_norms(model: nn.Module) -> Iterator[Finding]:
    """Swap all of a model's.

    >>> model = nn.Sequential(
    ...     nn.utils.parametrizations.spectral_norm(nn.Conv2d(64, 128, 4)), nn.utils.spectral_norm(nn.Conv2d(128, 1, 4))
    ... )
    >>> [finding.what for finding in spectral_norms(model)]
    ['spectral norm of weight -> computed with 1 other', 'spectral norm of weight -> computed with 1 other']
    """
    found = list(_found(model))
    if found and not_the_cpu(model) is None and sum(values for *_, values in found) < FEW * len(found):
        for name, parameter, *_ in found:
            yield Finding(name, f"spectral norm of {parameter}", f"weights of fewer than {FEW} values, as a mean")
        return
    for _, _, norm, kind, _ in found:
        become(norm, kind)
    where = [(name, parameter) for name, parameter, *_ in found]
    if len(where) > 1:
        network = _smallest_with_all(model, [name for name, _ in where])
        network.register_forward_pre_hook(prepare, prepend=True)
        network.register_forward_hook(clear, always_call=True)
    others = f"{len(where) - 1} other{'s' if len(where) != 2 else ''}"
    for name, parameter in where:
        yield Finding(name, f"spectral norm of {parameter} -> computed with {others}")


def _found(model: nn.Module) -> Iterator[tuple[str, str, Any, type, int]]:
    """All of torch's: names of layer and parameter, the norm, the class it is to have, how many values it divides."""
    for name, module in model.named_modules():
        for hook in module._forward_pre_hooks.values():
            if type(hook) is SpectralNorm:
                weight = getattr(module, f"{hook.name}_orig")
                yield name, hook.name, hook, JointSpectralNormHook, weight.numel()
        if isinstance(module, ParametrizationList) and type(module[0]) is _SpectralNorm:
            owner, _, parameter = name.rpartition(".parametrizations.")
            yield owner, parameter, module[0], JointSpectralNorm, module.original.numel()


def forget(module: nn.Module) -> None:
    """Undo what the rule did to a module's hooks."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, JointSpectralNormHook):
            restored(hook)
    for hooks, ours in ((module._forward_pre_hooks, prepare), (module._forward_hooks, clear)):
        for key in [key for key, hook in hooks.items() if hook is ours]:
            del hooks[key]
            module._forward_hooks_always_called.pop(key, None)


def _smallest_with_all(model: nn.Module, names: Sequence[str]) -> nn.Module:
    """The smallest module that has a forward and holds all of these."""
    levels = takewhile(lambda level: len(set(level)) == 1, zip(*(name.split(".") for name in names), strict=False))
    path = [level[0] for level in levels]
    while path and type(model.get_submodule(".".join(path))).forward is nn.Module.forward:
        path = path[:-1]
    return model.get_submodule(".".join(path))


class _Member(NamedTuple):
    """A weight that is to be iterated for, beginning with u or with v."""

    norm: Any
    weight: Tensor
    first: Tensor
    u_first: bool


def prepare(network: nn.Module, _arguments: Any) -> None:
    """Iterate for all spectral norms of a network before it runs."""
    if not torch.compiler.is_compiling():  # whose compiler joins what it can
        _prepare(network)


@torch.no_grad()
def _prepare(network: nn.Module) -> None:
    all_members = list(_members(network))
    network.__dict__[_PREPARED] = [member.norm for member in all_members]
    groups: dict[Any, list[_Member]] = defaultdict(list)
    for member in all_members:
        groups[member.u_first, member.norm.n_power_iterations, member.norm.eps].append(member)
    for members in groups.values():
        for member, made in zip(members, _iterated(members), strict=True):
            member.norm.__dict__[_PREPARED] = made


def _made(member: _Member) -> Vectors:
    """What was made for a member together with others', or, in a second run of its layer, alone."""
    prepared: Vectors | None = member.norm.__dict__.pop(_PREPARED, None)
    return _iterated([member])[0] if prepared is None else prepared


def _iterated(members: Sequence[_Member]) -> list[Vectors]:
    """Iterate for members that begin on one side, with the same number of iterations and eps."""
    weights, (_, _, _, u_first) = [_matrix(member.weight) for member in members], members[0]
    first = [m.first if u_first else _lying(m.first, m.weight) for m in members]
    norm = members[0].norm
    found = power_iteration(weights, first, u_first, norm.n_power_iterations, norm.eps, added=False)
    return found.each(weights)


def clear(network: nn.Module, _arguments: Any, _result: Any) -> None:
    """Drop what no layer has come for."""
    if torch.compiler.is_compiling():
        return
    for norm in network.__dict__.pop(_PREPARED, ()):
        norm.__dict__.pop(_PREPARED, None)


def _members(network: nn.Module) -> Iterator[_Member]:
    for module in network.modules():
        if isinstance(module, ParametrizationList) and isinstance(module[0], JointSpectralNorm):
            norm, weight = module[0], module.original
            if norm.training and _takes(weight, norm.dim):
                yield _Member(norm, weight, norm._v, u_first=False)
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, JointSpectralNormHook) and module.training:
                weight, u = getattr(module, f"{hook.name}_orig"), getattr(module, f"{hook.name}_u")
                if _takes(weight, hook.dim):
                    yield _Member(hook, weight, u, u_first=True)


def _takes(weight: Tensor, dim: int) -> bool:
    """Say whether a weight can be read as a matrix as it lies, and torch leaves room for operations of ours.

    Not one that lies on several machines (DTensor), as those of layers that FSDP has not gathered yet.
    """
    plain = type(weight) in (Tensor, nn.Parameter) and weight.is_floating_point() and weight.numel() > 0
    plain = plain and dim == 0 and weight.ndim > 1
    ours = not torch.compiler.is_compiling() and not transformed()
    return plain and ours and (weight.is_contiguous() or weight.movedim(1, -1).is_contiguous())


def _matrix(weight: Tensor) -> Tensor:
    """A weight as a matrix, its rows as they lie in memory: torch's, or for channels_last ones in another order."""
    return (weight if weight.is_contiguous() else weight.movedim(1, -1)).flatten(1)


def _lying(v: Tensor, weight: Tensor) -> Tensor:
    """v in the order of the matrix's columns."""
    return v if weight.is_contiguous() else v.view(weight.shape[1:]).movedim(0, -1).flatten()


def _standing(v: Tensor, weight: Tensor) -> Tensor:
    """v in torch's order again."""
    return v if weight.is_contiguous() else v.view(*weight.shape[2:], -1).movedim(-1, 0).flatten()


@torch.no_grad()
def _kept(weight: Tensor, u: Tensor, v: Tensor) -> Vectors:
    """The vectors that a norm has kept, copied, as they may move on before the backward."""
    u, v = u.clone(), _lying(v, weight).clone()
    return Vectors(u, v, torch.dot(u, torch.mv(_matrix(weight), v).to(u.dtype))[None])


@torch.no_grad()
def _keep(buffers: Sequence[Tensor], made: Vectors, weight: Tensor) -> None:
    torch._foreach_copy_(list(buffers), [made.u, _standing(made.v, weight)])


def _divided(weight: Tensor, vectors: Vectors) -> Tensor:
    """`W / sigma` with `sigma = u^T W v`, u and v constants; it lies as the weight."""
    if not (torch.is_grad_enabled() and weight.requires_grad):
        return weight / vectors.sigma
    (result,) = divide([weight], vectors)
    return result
