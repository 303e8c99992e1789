"""Instance norms and the activations behind them in one: a tensor less is kept, and two passes less are made."""

from collections.abc import Iterator

from torch import nn

from lorbms_fast.kernels._common.activation import IDENTITY, Activation, of_layer
from lorbms_fast.kernels.accelerate.report import Finding
from lorbms_fast.kernels.accelerate.rules.devices import no_quick_norm
from lorbms_fast.kernels.accelerate.rules.instance_norm import OURS, why_not
from lorbms_fast.kernels.accelerate.swapping import Passed, become, has_hooks
from lorbms_fast.kernels.accelerate.uses import Uses, uses
from lorbms_fast.kernels.instance_norm import InstanceNormAct2d, InstanceNormAct3d

JOINED: dict[type[nn.Module], type[nn.Module]] = {
    nn.InstanceNorm2d: InstanceNormAct2d,
    nn.InstanceNorm3d: InstanceNormAct3d,
}


def norms_with_activations(model: nn.Module) -> Iterator[Finding]:
    """Let norms compute the activations that follow each of their calls.

    >>> model = nn.Sequential(nn.InstanceNorm2d(4), nn.SiLU())
    >>> [finding.what for finding in norms_with_activations(model)]
    ['InstanceNorm2d -> InstanceNormAct2d', 'SiLU -> computed by 0']
    """
    if no_quick_norm(model) is not None:
        return
    found = uses(model)
    names = {module: name for name, module in model.named_modules()}
    norms = {m for m in model.modules() if type(m) in OURS and why_not(m) is None and not has_hooks(m)}
    activations = {m for m in model.modules() if of_layer(m) not in (None, IDENTITY) and not has_hooks(m)}
    wanted = {norm: found[norm].after & activations for norm in norms}
    while True:
        kept = {norm for norm in norms if _follow(found[norm], activations)}
        alone = {a for a in activations if found[a].opaque is None and found[a].before and found[a].before <= kept}
        if kept == norms and alone == activations:
            break
        norms, activations = kept, alone
    kinds = {module: type(module).__name__ for module in norms | activations}
    for module, name in names.items():
        if module in norms:
            (activation,) = _functions(found[module])
            become(module, JOINED[type(module)], activation=activation.name, negative_slope=activation.slope)
            yield Finding(name, f"{kinds[module]} -> {type(module).__name__}")
        elif wanted.get(module):
            opaque = found[module].opaque
            reason = "not each call is followed by one" if opaque is None else f"{opaque} cannot be followed"
            yield Finding(name, f"{type(module).__name__} with the activation behind it", reason)
    for module, name in names.items():
        if module in activations:
            become(module, Passed)
            by = ", ".join(sorted(names[norm] for norm in found[module].before))
            yield Finding(name, f"{kinds[module]} -> computed by {by}")


def _follow(of_norm: Uses, activations: set[nn.Module]) -> bool:
    """Say whether every call of a norm is followed by the same function."""
    return of_norm.opaque is None and of_norm.after <= activations and len(_functions(of_norm)) == 1


def _functions(of_norm: Uses) -> set[Activation]:
    """What follows a norm."""
    found = {of_layer(module) for module in of_norm.after if module is not None}
    return {activation for activation in found if activation is not None}
