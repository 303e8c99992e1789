"""Adam as TensorFlow writes it, one for each loss that moves networks."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from lorbms_fast.config import OptimConfig, Precision
from lorbms_fast.kernels._common.layout import is_channels_last
from lorbms_fast.kernels.lorbms.adam import step_size
from lorbms_fast.kernels.passes import constant
from lorbms_fast.types import Networks

Average = Callable[[Sequence[Tensor]], None]


class Adam(torch.optim.Optimizer):
    """Adam with eps where TensorFlow has it: `lr sqrt(1-b2^t)/(1-b1^t) m / (sqrt(v) + eps)`.

    A step whose gradients are not all finite is not taken, as the device itself decides: nobody waits for it.

    Rate and step count lie beside the parameters, so that a captured graph sees them change: `group["lr"]` is a
    tensor, to be filled and not replaced. torch's fused kernel corrects m and v itself; told of infinitely many
    steps, it finds nothing to correct, and gets the correction in the rate instead.

    A `scaler` scales losses for float16 and skips steps that overflow; `average` replaces gradients by their averages,
    where several processes train together.
    """

    EPS = 1e-8

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        scaler: GradScaler | None = None,
        average: Average | None = None,
    ) -> None:
        parameters = list(parameters)
        device = parameters[0].device
        rate, t = (torch.tensor(number, dtype=torch.float64, device=device) for number in (lr, 0.0))
        super().__init__(parameters, {"lr": rate, "betas": betas, "t": t})
        self.scaler = scaler or GradScaler(device.type, enabled=False)
        self.average = average
        self._infinity = torch.full((), torch.inf, device=device)
        self._one = torch.ones((), device=device)
        self.factor = torch.ones((), dtype=torch.float64, device=device)
        """Factor on the learning rate, whatever is filled in for that: less than 1 after the training has diverged."""
        self.flawed = torch.zeros(2, device=device)
        """Numbers of losses, and of steps' gradients, that were not finite; whoever reads them sets them back.
        Overflows that a scaler is there for do not count."""
        self._step_supports_amp_scaling = True  # steps that overflow are skipped inside the kernel: nobody waits
        for parameter in parameters:
            self.state[parameter] = {"exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)}

    @property
    def t(self) -> Tensor:
        """Number of steps taken."""
        return self.param_groups[0]["t"]

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state; rate, step count and moments stay the tensors that they are, which a graph may read."""
        groups = [{name: group[name] for name in ("lr", "t")} for group in self.param_groups]
        state = {parameter: dict(self.state[parameter]) for parameter in self.state}
        super().load_state_dict(state_dict)
        for group, tensors in zip(self.param_groups, groups, strict=True):
            group |= {name: tensor.copy_(torch.as_tensor(group[name])) for name, tensor in tensors.items()}
        for parameter, moments in state.items():
            self.state[parameter] = {n: moment.copy_(self.state[parameter][n]) for n, moment in moments.items()}

    @torch.no_grad()
    def step(self, closure: None = None, loss: Tensor | None = None) -> None:  # type: ignore[override]
        """Take one step; parameters without a gradient stay, no closure is called; note a loss that is not finite."""
        (group,) = self.param_groups
        moved = [parameter for parameter in group["params"] if parameter.grad is not None]
        gradients = [_lying_as(parameter, parameter.grad) for parameter in moved]
        for parameter in moved:
            for moment in self.state[parameter].values():
                if moment.stride() != parameter.stride():  # the network was given another memory format since
                    moment.data = _lying_as(parameter, moment)
        of_scaler: Tensor | None = getattr(self, "found_inf", None)
        overflow = self._one_if_not_finite(gradients) if of_scaler is None else of_scaler
        rate = step_size(
            self._one if loss is None else loss, overflow, group["t"], self.flawed, group["lr"], self.factor,
            group["betas"], expected=of_scaler is not None,
        )  # fmt: skip
        beta1, beta2 = group["betas"]
        m, v = ([self.state[parameter][name] for parameter in moved] for name in ("exp_avg", "exp_avg_sq"))
        rate = rate.float() if rate.is_cuda else rate  # which is how the kernels read it
        torch._fused_adam_(
            _as_rows(moved), _as_rows(gradients), _as_rows(m), _as_rows(v), [], [self._infinity] * len(moved),
            lr=rate, beta1=beta1, beta2=beta2, weight_decay=0.0, eps=self.EPS, amsgrad=False, maximize=False,
            grad_scale=getattr(self, "grad_scale", None), found_inf=overflow,
        )  # fmt: skip
        # torch's kernel does not say so, and what was made of parameters must be known to be out of date.
        torch.autograd.graph.increment_version(moved)

    def _one_if_not_finite(self, gradients: list[Tensor]) -> Tensor:
        found = torch.zeros_like(self._one)
        if gradients:  # to look at each writes all of them once more; Adam, too, could not square what overflows here
            norms = torch.stack(torch._foreach_norm(gradients))
            torch._amp_foreach_non_finite_check_and_unscale_([norms], found, self._one)
        return found

    def abandon(self, scaler: dict[str, Any] | None = None) -> None:
        """Forget an update that was broken off before its step: gradients, and what the scaler noted.

        The scaler and its tensors stay the ones that a graph may have been told of; they go back to a state, if given.
        """
        self.zero_grad(set_to_none=True)
        if self.scaler.is_enabled():
            self.scaler._per_optimizer_states.clear()
            self.scaler.load_state_dict(scaler or self.scaler.state_dict())


def _lying_as(parameter: Tensor, beside: Tensor) -> Tensor:
    """Lay a gradient or a moment as its parameter lies: torch's kernel goes through all of them as through memory."""
    return beside if beside.stride() == parameter.stride() else torch.empty_like(parameter).copy_(beside)


def _as_rows(tensors: list[Tensor]) -> list[Tensor]:
    """Look at channels_last tensors as contiguous ones: torch's kernel would copy the gradients of others."""
    return [tensor.permute(0, 2, 3, 1) if is_channels_last(tensor) else tensor for tensor in tensors]


@dataclass(frozen=True)
class Optimizers:
    """The three optimizers of an iteration."""

    generator: Adam
    classifier: Adam
    discriminator: Adam

    @classmethod
    def of(
        cls, networks: Networks, config: OptimConfig, arithmetic: Precision = "float32", average: Average | None = None
    ) -> "Optimizers":
        """Make optimizers for the networks, where their parameters are now; each has a scaler of its own in float16."""

        def adam(parameters: Iterable[nn.Parameter], lr: float) -> Adam:
            parameters = list(parameters)
            scaler = GradScaler(parameters[0].device.type, enabled=arithmetic == "float16")
            return Adam(parameters, lr, config.betas, scaler, average)

        return cls(
            adam(networks.generator, config.generator_lr),
            adam(networks.cls.parameters(), config.classifier_lr),
            adam(networks.dsc.parameters(), config.discriminator_lr),
        )

    def tensors(self) -> list[Tensor]:
        """List what steps change, but for the scalers: step counts, rates, moments, notes of what was not finite."""
        found = []
        for optimizer in vars(self).values():
            found += [optimizer.t, optimizer.param_groups[0]["lr"], optimizer.flawed]
            found += [moment for state in optimizer.state.values() for moment in state.values()]
        return found

    def set_rates(self, config: OptimConfig, iteration: int | Tensor) -> None:
        """Set the learning rates of an iteration, counted from 0: only the classifier's changes, as a staircase.

        The iteration is a tensor () beside the parameters where a captured graph is to count it.
        """
        drops = iteration // config.classifier_decay_every
        if isinstance(drops, Tensor):
            drops = drops.double()  # or the rate would be rounded to float32
        for group in self.classifier.param_groups:
            group["lr"].fill_(config.classifier_lr * config.classifier_decay**drops)


def update(optimizer: Adam, loss: Tensor) -> None:
    """Move the optimizer's parameters one step down the loss."""
    optimizer.scaler.scale(loss).backward()
    if optimizer.average is not None:
        optimizer.average(optimizer.param_groups[0]["params"])
    optimizer.scaler.step(optimizer, loss=loss)
    optimizer.scaler.update()
    optimizer.zero_grad(set_to_none=True)  # now, as the classifier's gradients take more memory than many activations


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Treat the networks' parameters as constants: no gradients for them, and what passes read of them is made once."""
    trained = [parameter for network in networks for parameter in network.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        with constant(*networks):
            yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


@contextmanager
def undone(networks: nn.Module, optimizers: Optimizers, others: Sequence[Tensor] = ()) -> Iterator[None]:
    """Put back, in place, all that iterations inside the block change, also where one fails."""
    tensors = [*networks.parameters(), *networks.buffers(), *optimizers.tensors(), *others]
    before = [tensor.detach().to("cpu", copy=True) for tensor in tensors]
    scalers = [optimizer.scaler.state_dict() for optimizer in vars(optimizers).values()]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, before, strict=True):
                tensor.copy_(value)
        for optimizer, scaler in zip(vars(optimizers).values(), scalers, strict=True):
            optimizer.abandon(scaler)
