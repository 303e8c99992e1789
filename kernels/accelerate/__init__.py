"""Swap the layers of somebody's model for faster ones by one call, and back by another.

`RULES` are tried in turn; each is a file of `rules/` that finds modules a faster one can replace, and says what it left
and why. A module remains the same object, with its parameters, buffers, hooks and names, and gets another class
(`swapping.become`): optimizers made before, state dicts, copies and moves to other devices stay right.
"""

from collections.abc import Iterable

from torch import nn

from lorbms_fast.kernels.accelerate.report import Report
from lorbms_fast.kernels.accelerate.rules import MEMORY_RULES, RULES, Rule
from lorbms_fast.kernels.accelerate.rules.spectral_norm import forget
from lorbms_fast.kernels.accelerate.source import asks_for_types
from lorbms_fast.kernels.accelerate.swapping import restored, with_partners
from lorbms_fast.kernels.accelerate.uses import flows, traced_once

_WRAPPED = ("module", "_orig_mod")
"""What torch's own wrappers (DistributedDataParallel, torch.compile) call the model that they run."""

__all__ = ["MEMORY_RULES", "RULES", "Report", "accelerate", "restore"]


def accelerate(model: nn.Module, save_memory: bool = False) -> Report:
    """Swap layers of a model, in place, for faster ones of this package that compute the same.

    >>> model = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(3))
    >>> x = torch.randn(2, 3, 16, 16)
    >>> before = model(x)
    >>> print(accelerate(model))
    where  what                      why not
    0      Upsample -> computed by 1
    1      Conv2d -> UpsampleConv2d
    2      MaxPool2d                 not of 2x2 squares side by side
    >>> torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-5)
    >>> restore(model)
    >>> type(model[1]) is nn.Conv2d
    True

    Results change by rounding only. Parameters, names, state dict and hooks stay, so that it may be called before or
    after an optimizer is made or a checkpoint is loaded. Move the model to its device first, since that decides what is
    known to be faster, and compile it afterwards. A whole model that is pickled needs this package to be loaded again;
    a state dict does not.

    Norms are joined with the activations behind them, and enlarging and pads with convolutions, where a module's
    forward is nn.Sequential's or can be followed (by torch.fx), nothing else reads what passes between them, and no
    hooks are on them. The intermediate result is then never computed. A hook on one of them, another layer in its
    place, its deletion, or a new value of an attribute that is not read at every call (an activation's slope) makes
    both what they were. Call `accelerate` again after that.

    The model is taken as it is now. Call `restore` before you change its forward, a flag that decides what a forward
    reads, the order of a sequence (`insert`), `_modules` itself or an attribute that a forward asks for (`hasattr`),
    and before tools that go by exact types (torch.ao's quantization, captum's DeepLift, most counts of operations);
    then call `accelerate` again. To hear of deletions, the first layers that are joined wrap torch's own
    `Module.__delattr__`, and `ModuleDict`'s methods that delete, for the whole process; `restore` leaves them so.

    Args:
        model: any; changed in place.
        save_memory: also swap what takes less memory and may take longer: dense blocks, torchvision's and others'.

    Returns:
        A list that prints as a table: layers that were swapped (`.swapped`), and those that a rule looked at and left,
        with the reason (`.left`).

    Raises:
        TypeError: the model is no module.
    """
    _check(model)
    for name in _WRAPPED:
        if type(model).__module__.startswith("torch.") and [*model._modules] == [name]:
            return Report([finding.below(name) for finding in accelerate(model.get_submodule(name), save_memory)])
    with traced_once(model):
        return _accelerated(model, [*MEMORY_RULES, *RULES] if save_memory else RULES)


def _accelerated(model: nn.Module, rules: Iterable[Rule]) -> Report:
    kinds, before = {module: type(module) for module in model.modules()}, flows(model)
    report = Report([finding for rule in rules for finding in rule(model)])
    if not report.swapped:
        return report
    after = flows(model)
    asking = {m for m, kind in kinds.items() if type(m) is kind and (before.get(m) != after.get(m))}
    swapped = {each.__name__ for m, kind in kinds.items() if type(m) is not kind for each in (kind, type(m))}
    asking |= {module for module, flow in after.items() if not flow and asks_for_types(module, swapped)}
    names = {module: name for name, module in model.named_modules()}
    undone = {names[module] for module in _restored(asking)}
    why_not = "a forward asks for the types of its layers, or uses them in other ways than by calls"
    return Report([finding.undone(why_not) if finding.where in undone else finding for finding in report])


def restore(model: nn.Module) -> None:
    """Undo `accelerate`: every module is of its own class again. A model that was not accelerated stays as it is.

    Given a part of a model, it also restores what was joined with layers of that part.

    >>> model = nn.Sequential(nn.MaxPool2d(2))
    >>> report = accelerate(model)
    >>> restore(model)
    >>> type(model[0]) is nn.MaxPool2d
    True
    """
    _check(model)
    _restored([model])


def _check(model: object) -> None:
    if not isinstance(model, nn.Module):
        kind = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
        raise TypeError(f"accelerate and restore take an nn.Module with its layers, not {kind}")


def _restored(modules: Iterable[nn.Module]) -> set[nn.Module]:
    """All modules in these, and those that do their work, are of their own classes again."""
    found = with_partners(below for module in modules for below in module.modules())
    for module in found:
        restored(module)
        forget(module)
    return found
