"""The fast iteration against the reference, step for step in float64."""

import copy
import dataclasses
import gc
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lorbms_fast.engine.implementations import IMPLS
from lorbms_fast.engine.iteration import iterate
from lorbms_fast.kernels import spectral_norm, spectral_norm_through
from lorbms_fast.measurement.counts import count
from lorbms_fast.measurement.step import random_batch, step
from lorbms_fast.mixing import padded_candidates, used_candidates
from lorbms_fast.models import build
from lorbms_fast.optimizers import Adam, Optimizers, update
from lorbms_fast.types import Batch
from tests.conftest import TINY
from tests.lorbms_fast.engine.waiting import waits
from tests.processes import PROCESSES


def double(batch: Batch) -> Batch:
    return Batch(batch.I_ref.double(), batch.I_q.double(), batch.mask)


def trained(impl, config, iterations, normalize=spectral_norm, fresh=False):
    """Losses of each iteration and all tensors at the end."""
    networks = build(config.model, impl, 0, normalize).double().train()
    optimizers = Optimizers.of(networks, config.optim)
    losses = []
    for i in range(iterations):
        batches = [double(random_batch(3, 64, seed=10 * i + fresh * k)) for k in range(4)]
        batches = batches if fresh else batches[:1]
        report = iterate(IMPLS[impl], networks, optimizers, batches, config.loss, config.optim)
        losses.append(torch.stack([getattr(report, f.name) for f in dataclasses.fields(report)]))
    return torch.stack(losses), networks.state_dict()


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("normalize", [spectral_norm, spectral_norm_through])
def test_five_iterations_agree(normalize, fresh):
    reference_losses, reference = trained("reference", TINY, 5, normalize, fresh)
    losses, fast = trained("fast", TINY, 5, normalize, fresh)
    torch.testing.assert_close(losses, reference_losses, rtol=1e-9, atol=0)
    for name, expected in reference.items():
        # Biases before a norm have gradient 0, of which Adam makes steps of rounding noise: they move nothing.
        scale = max(expected.norm().item(), 1e-2)
        assert (fast[name] - expected).norm().item() <= 1e-9 * scale or _without_effect(name), name


def test_updates_come_in_the_thesis_s_order_and_u_moves_after_all(monkeypatch):
    networks = build(TINY.model, "fast").train()
    optimizers = Optimizers.of(networks, TINY.optim)
    names = {optimizer: name for name, optimizer in vars(optimizers).items()}
    before = {name: value.clone() for name, value in networks.named_buffers() if name.endswith(".u")}
    order = []

    def noted(optimizer, loss):
        order.append(names[optimizer])
        update(optimizer, loss)
        assert all(torch.equal(networks.get_buffer(name), u) for name, u in before.items())

    monkeypatch.setattr("lorbms_fast.engine.iteration.update", noted)
    iterate(IMPLS["fast"], networks, optimizers, [random_batch(3, 64)], TINY.loss, TINY.optim)
    assert order == ["generator", "generator", "classifier", "discriminator"]
    assert before
    assert not any(torch.equal(networks.get_buffer(name), u) for name, u in before.items())


def _without_effect(name: str) -> bool:
    return name.startswith("enc.") and name.endswith(".bias")


def test_each_loss_moves_its_own_network_only():
    networks = build(TINY.model, "fast").train()
    before = {name: tensor.clone() for name, tensor in networks.state_dict().items()}
    optimizers = Optimizers.of(networks, TINY.optim)
    for optimizer in (optimizers.generator, optimizers.classifier):
        for group in optimizer.param_groups:
            group["lr"].zero_()
    iterate(IMPLS["fast"], networks, optimizers, [random_batch(3, 64)], TINY.loss, TINY.optim)
    state = {name: tensor for name, tensor in networks.state_dict().items() if not name.endswith(".u")}
    moved = {name.split(".")[0] for name, tensor in state.items() if not torch.equal(tensor, before[name])}
    assert moved == {"dsc", "cls"}  # the classifier's running averages follow its own update
    assert torch.equal(networks.state_dict()["cls.fc8.weight"], before["cls.fc8.weight"])


def test_fast_form_does_less():
    reference, fast = (count(step(impl, TINY.model, 3)) for impl in ("reference", "fast"))
    assert fast.gflop < 0.75 * reference.gflop
    assert fast.operations < reference.operations
    assert fast.gigabytes < reference.gigabytes


@pytest.mark.parametrize("replaced", [1, 3])
def test_any_number_of_used_candidates(replaced):
    batch = double(random_batch(2, 64))
    mask = torch.zeros(2, 4, dtype=torch.bool)
    mask[:, :replaced] = True
    results = []
    for impl in IMPLS:
        networks = build(TINY.model, impl).double().train()
        with torch.no_grad():
            results.append(IMPLS[impl].scenes(networks, batch._replace(mask=mask)))
    torch.testing.assert_close(results[0].I_prime, results[1].I_prime, rtol=0, atol=1e-11)
    torch.testing.assert_close(results[0].f_mix, results[1].f_mix, rtol=0, atol=1e-11)


def test_adam_has_eps_where_tensorflow_has_it():
    x = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = Adam([x], lr=0.1, betas=(0.5, 0.999))
    m = v = 0.0
    expected = 1.0
    for t, g in enumerate((1e-7, -3e-8, 2e-6), start=1):
        x.grad = torch.tensor([g], dtype=torch.float64)
        optimizer.step()
        m, v = 0.5 * m + 0.5 * g, 0.999 * v + 0.001 * g * g
        expected -= 0.1 * (1 - 0.999**t) ** 0.5 / (1 - 0.5**t) * m / (v**0.5 + 1e-8)
    assert x.item() == pytest.approx(expected, rel=1e-12)


def test_adam_reads_channels_last_gradients_where_they_lie():
    beside, plain = (
        torch.nn.Parameter(torch.ones(4, 3, 3, 3).contiguous(memory_format=layout))
        for layout in (torch.channels_last, torch.contiguous_format)
    )
    gradient = torch.randn(4, 3, 3, 3)
    for x in (plain, beside):
        x.grad = torch.empty_like(x).copy_(gradient)
        optimizer = Adam([x], lr=0.1)
        with torch.profiler.profile() as seen:
            optimizer.step()
        assert "aten::clone" not in {event.key for event in seen.key_averages()}
    assert torch.equal(beside, plain)


@pytest.mark.parametrize("of_parameter", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("of_gradient", [torch.contiguous_format, torch.channels_last], ids=str)
def test_adam_takes_gradients_that_lie_in_another_way(of_parameter, of_gradient):
    values, gradient = torch.randn(2, 4, 3, 3, 3)
    found = torch.nn.Parameter(values.contiguous(memory_format=of_parameter))
    expected = torch.nn.Parameter(values.clone())
    found.grad, expected.grad = gradient.contiguous(memory_format=of_gradient), gradient.clone()
    for x in (found, expected):
        Adam([x], lr=0.1).step()
    assert torch.equal(found, expected)


def test_adam_goes_on_where_a_network_is_given_another_memory_format():
    values, *gradients = torch.randn(5, 4, 3, 3, 3)
    expected, layer = torch.nn.Parameter(values.clone()), torch.nn.Conv2d(3, 4, 3, bias=False)
    layer.weight.data.copy_(values)
    optimizers = Adam([expected], lr=0.1), Adam(layer.parameters(), lr=0.1)
    formats = (torch.contiguous_format, torch.channels_last) * 2
    for gradient, memory_format in zip(gradients, formats, strict=True):
        layer.to(memory_format=memory_format)
        expected.grad, layer.weight.grad = gradient, gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
        # Vectors of torch's kernel round otherwise than the values behind the last of them.
        torch.testing.assert_close(layer.weight, expected, rtol=1e-6, atol=1e-6)


def test_adam_goes_on_from_its_state():
    x, y = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    first, second = (Adam([p], lr, (0.5, 0.999)) for p, lr in ((x, 0.1), (y, 0.7)))
    rate, t = second.param_groups[0]["lr"], second.t
    for _ in range(3):
        (x**2).sum().backward()
        first.step()
        first.zero_grad()
    second.load_state_dict(copy.deepcopy(first.state_dict()))  # which else shares the moments
    assert second.param_groups[0]["lr"] is rate  # what a captured graph reads
    assert second.t is t
    assert (rate.item(), t.item()) == (0.1, 3)
    with torch.no_grad():
        y.copy_(x)
    for p, optimizer in ((x, first), (y, second)):
        (p**2).sum().backward()
        optimizer.step()
    assert torch.equal(x, y)
    assert first.t.item() == 4


def test_classifier_rate_is_a_staircase():
    optimizers = Optimizers.of(build(TINY.model, "fast"), TINY.optim)
    rates = []
    for iteration in (0, 19_999, 20_000, 45_000):
        optimizers.set_rates(TINY.optim, iteration)
        rates.append(optimizers.classifier.param_groups[0]["lr"].item())
    assert rates == pytest.approx([2e-4, 2e-4, 1.8e-4, 1.62e-4])
    assert optimizers.generator.param_groups[0]["lr"] == 2e-4


class NothingWaits(TorchDispatchMode):
    """Fails on operations that make the host wait for a GPU's result."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert not waits(func, args), func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("arithmetic", ["float32", "bfloat16", "float16"])
def test_the_host_never_waits_inside_an_iteration(arithmetic):
    networks = build(TINY.model, "fast").train()
    optimizers = Optimizers.of(networks, TINY.optim, arithmetic)
    batch = random_batch(2, 64).to("cpu")
    for i in range(2):
        with NothingWaits():
            optimizers.set_rates(TINY.optim, i)
            report = iterate(IMPLS["fast"], networks, optimizers, [batch], TINY.loss, TINY.optim, arithmetic)
    assert np.isfinite(list(report.numbers().values())).all()


def test_the_audit_sees_what_waits():
    x = torch.ones(2)
    for waiting in (lambda: x[0].item(), lambda: (x > 0).nonzero(), lambda: x[x > 0]):
        with pytest.raises(AssertionError), NothingWaits():
            waiting()


@pytest.mark.parametrize("extra", [0, 1, 4])
def test_padding_of_used_candidates_changes_nothing(extra):
    batch = double(random_batch(3, 64))
    used = used_candidates(batch.mask)
    padded = padded_candidates(batch.mask, used.shape[1] + extra)
    assert padded.shape == (2, used.shape[1] + extra)
    networks = build(TINY.model, "fast").double().train()
    results = []
    for u in (used, padded):
        parts, s = IMPLS["fast"].generator_losses(networks, batch._replace(used=u), TINY.loss)
        gradients = torch.autograd.grad(parts.L_G, networks.generator)
        results.append([s.f_mix, s.I_mix, s.I_prime, *gradients])
    for plain, with_padding in zip(*results, strict=True):
        torch.testing.assert_close(with_padding, plain, rtol=1e-9, atol=1e-13)


def left_to_the_garbage_collector(impl):
    one_iteration = step(impl, TINY.model, 2)
    one_iteration()
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    one_iteration()
    gc.collect()
    return sum(isinstance(thing, torch.Tensor) for thing in gc.garbage)


@pytest.mark.parametrize("impl", ["reference", "fast"])
def test_an_iteration_leaves_no_tensors_to_the_garbage_collector(impl):
    # In a process of its own: what tests before this one left is not the iteration's.
    with ProcessPoolExecutor(1, PROCESSES) as pool:
        assert pool.submit(left_to_the_garbage_collector, impl).result() == 0
