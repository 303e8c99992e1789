"""Norms and the activations behind them in one: a tensor less is kept, and two passes less are made."""

from collections.abc import Iterator

from torch import nn

from lorbms_fast.kernels._common.activation import IDENTITY, Activation, of_layer
from lorbms_fast.kernels.accelerate.joined import (
    BatchNormAct2d,
    BatchNormAct3d,
    InstanceNormAct2d,
    InstanceNormAct3d,
)
from lorbms_fast.kernels.accelerate.own_activation import own_activation, with_activation
from lorbms_fast.kernels.accelerate.report import Finding
from lorbms_fast.kernels.accelerate.rules.dense_block import computed_by_blocks
from lorbms_fast.kernels.accelerate.rules.devices import no_quick_norm, not_the_cpu
from lorbms_fast.kernels.accelerate.rules.instance_norm import why_not
from lorbms_fast.kernels.accelerate.swapping import PASSED, become, has_hooks, pair
from lorbms_fast.kernels.accelerate.uses import Uses, uses

JOINED: dict[type[nn.Module], type[nn.Module]] = {
    nn.InstanceNorm2d: InstanceNormAct2d,
    nn.InstanceNorm3d: InstanceNormAct3d,
    nn.BatchNorm2d: BatchNormAct2d,
    nn.BatchNorm3d: BatchNormAct3d,
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
    own = {m: activation for m in model.modules() if (activation := own_activation(m)) is not None}
    found = _one_behind_the_other(own, _without_dropouts(_without_identities(uses(model))))
    names = {module: name for name, module in model.named_modules()}
    norms = {m for m in model.modules() if type(m) in JOINED or m in own}
    norms = {m for m in norms - computed_by_blocks(model) if _may_be_joined(m, model) and not has_hooks(m)}
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
            kind = with_activation(type(module)) if module in own else JOINED[type(module)]
            become(module, kind, **_attributes(module, found[module]))
            ours = type(module).__qualname__ + (" of lorbms_fast" if module in own else "")
            yield Finding(name, f"{kinds[module]} -> {ours}")
        elif wanted.get(module) or (module in wanted and found[module].opaque is not None):
            behind = "with the activation behind it" if wanted[module] else "with what may be behind it"
            reason = _why_not(found[module], wanted[module], found)
            yield Finding(name, f"{type(module).__name__} {behind}", reason)
    for module, name in names.items():
        if module in activations:
            become(module, PASSED[type(module)])
            for norm in found[module].before:
                if norm is not None:
                    pair(norm, module)
            by = ", ".join(sorted(names[norm] for norm in found[module].before))
            yield Finding(name, f"{kinds[module]} -> computed by {by}")


def _may_be_joined(norm: nn.Module, model: nn.Module) -> bool:
    """Say whether a norm computes what ours does; a batch norm on a CPU, and no frozen one."""
    if isinstance(norm, nn.modules.batchnorm._BatchNorm):
        return not_the_cpu(model) is None and norm.training == model.training
    return why_not(norm) is None


def _without_identities(found: dict[nn.Module, Uses]) -> dict[nn.Module, Uses]:
    """Uses as if what hands its input on, as dropouts and blurs do that were not asked for, were not there."""
    for module, of in found.items():
        once = len(of.before) == len(of.after) == 1
        if type(module) is nn.Identity and not has_hooks(module) and of.opaque is None and once:
            _without(module, found)
    return found


def _without(module: nn.Module, found: dict[nn.Module, Uses]) -> None:
    """Let what takes a module's result be what takes that of the one in front of it."""
    (before,), (after,) = found[module].before, found[module].after
    if before is not None and after is not None:
        found[before].after = found[before].after - {module} | {after}
        found[after].before = found[after].before - {module} | {before}


def _without_dropouts(found: dict[nn.Module, Uses]) -> dict[nn.Module, Uses]:
    """Uses as if there were no dropout between a norm and a ReLU or LeakyReLU, which may as well be in front of it.

    Dropout multiplies by numbers that are not negative, `f(m y) = m f(y)`. Behind one in place an activation, which may
    need its result for the backward, would not have it.
    """
    for dropout, of in found.items():
        once = len(of.before) == len(of.after) == 1
        if type(dropout) not in _DROPOUTS or has_hooks(dropout) or of.opaque is not None or not once:
            continue
        if dropout.inplace:
            continue
        (before,), (after,) = of.before, of.after
        activation = None if after is None else of_layer(after)
        if before is None or after is None or type(before) not in JOINED or activation is None:
            continue
        if activation.name in ("relu", "leaky_relu"):
            _without(dropout, found)
    return found


def _one_behind_the_other(own: dict[nn.Module, nn.Module], found: dict[nn.Module, Uses]) -> dict[nn.Module, Uses]:
    """Uses as if activations that norms themselves call were called behind them, and the result were theirs."""
    for norm, activation in own.items():
        if found[activation].before == {norm.drop}:
            for reader in found[norm].after:
                if reader is not None:
                    found[reader].before = found[reader].before - {norm} | {None}
            found[norm].after, found[activation].before = {activation}, {norm}
    return found


def _follow(of_norm: Uses, activations: set[nn.Module]) -> bool:
    """Say whether every call of a norm is followed by the same function."""
    return of_norm.opaque is None and of_norm.after <= activations and len(_functions(of_norm)) == 1


def _why_not(of_norm: Uses, wanted: set[nn.Module | None], found: dict[nn.Module, Uses]) -> str:
    """Why a norm does not compute activations that follow calls of it."""
    if of_norm.opaque is not None:
        return f"{of_norm.opaque} cannot be followed"
    if of_norm.elsewhere or any(found[module].elsewhere for module in wanted if module is not None):
        return "a module outside of this model has one of them, too"
    if of_norm.after <= wanted and len(_functions(of_norm)) == 1:
        return "the activation follows something else as well"
    return "not each call is followed by one"


def _attributes(norm: nn.Module, of_norm: Uses) -> dict[str, object]:
    """What the joined layer must know of the activations."""
    (activation,) = _functions(of_norm)
    found: dict[str, object] = {"activation": activation.name, "negative_slope": activation.slope}
    if isinstance(norm, nn.modules.batchnorm._BatchNorm):
        found["inplace"] = all(getattr(module, "inplace", False) for module in of_norm.after)
    return found


def _functions(of_norm: Uses) -> set[Activation]:
    """Functions that follow a norm."""
    found = {of_layer(module) for module in of_norm.after if module is not None}
    return {activation for activation in found if activation is not None}
