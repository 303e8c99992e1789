"""Modules that torch.fx records as one call, as it does torch's own layers."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from torch import Tensor, nn
from torch.fx import Proxy


def leaf(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a module's forward: torch.fx records the call of the module and traces nothing inside."""

    @wraps(forward)
    def recorded(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if not kwargs and len(args) == 1 and isinstance(args[0], Tensor):  # soon: maps may be small
            return forward(module, args[0])
        for argument in (*args, *kwargs.values()):
            tracer: Any = argument.tracer if isinstance(argument, Proxy) else None
            if tracer is not None and module is not tracer.root:
                return tracer.create_proxy("call_module", tracer.path_of_module(module), args, kwargs)
        return forward(module, *args, **kwargs)

    return recorded
