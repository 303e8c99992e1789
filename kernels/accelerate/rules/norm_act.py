"""Instance norms and the activations behind them in one: a tensor less is kept, and two passes less are made."""

from collections.abc import Iterator

from torch import nn

from lorbms_fast.kernels._common.activation import IDENTITY, Activation, of_layer
from lorbms_fast.kernels.accelerate.report import Finding
from lorbms_fast.kernels.accelerate.rules.devices import no_quick_norm
from lorbms_fast.kernels.accelerate.rules.instance_norm import OURS, why_not
from lorbms_fast.kernels.accelerate.swapping import PASSED, become, has_hooks, pair
from lorbms_fast.kernels.accelerate.uses import Uses, uses
from lorbms_fast.kernels.instance_norm import InstanceNormAct2d, InstanceNormAct3d

JOINED: dict[type[nn.Module], type[nn.Module]] = {
    nn.InstanceNorm2d: InstanceNormAct2d,
    nn.InstanceNorm3d: InstanceNormAct3d,
}
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


def norms_with_activations(model: nn.Module) -> Iterator[Finding]:
    """Let norms compute the activations that follow each of their calls.

    >>> model = nn.Sequential(nn.InstanceNorm2d(4), nn.SiLU())
    >>> found = [finding.where for finding in norms_with_activations(model)]
    >>> found in (["0", "1"], [])  # none without a C++ compiler
    True
    """
    if no_quick_norm(model) is not None:
        return
    found = _without_dropouts(uses(model))
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
            become(module, PASSED[type(module)])
            for norm in found[module].before:
                if norm is not None:
                    pair(norm, module)
            by = ", ".join(sorted(names[norm] for norm in found[module].before))
            yield Finding(name, f"{kinds[module]} -> computed by {by}")


def _without_dropouts(found: dict[nn.Module, Uses]) -> dict[nn.Module, Uses]:
    """Uses as if there were no dropout between a norm and a ReLU or LeakyReLU, which may as well be in front of it.

    Dropout multiplies by numbers that are not negative, `f(m y) = m f(y)`.
    """
    for dropout, of in found.items():
        once = len(of.before) == len(of.after) == 1
        if type(dropout) not in _DROPOUTS or has_hooks(dropout) or of.opaque is not None or not once:
            continue
        (before,), (after,) = of.before, of.after
        activation = None if after is None else of_layer(after)
        if before is None or after is None or type(before) not in OURS or activation is None:
            continue
        if activation.name in ("relu", "leaky_relu"):
            found[before].after = found[before].after - {dropout} | {after}
            found[after].before = found[after].before - {dropout} | {before}
    return found


def _follow(of_norm: Uses, activations: set[nn.Module]) -> bool:
    """Say whether every call of a norm is followed by the same function."""
    return of_norm.opaque is None and of_norm.after <= activations and len(_functions(of_norm)) == 1


def _functions(of_norm: Uses) -> set[Activation]:
    """Functions that follow a norm."""
    found = {of_layer(module) for module in of_norm.after if module is not None}
    return {activation for activation in found if activation is not None}
