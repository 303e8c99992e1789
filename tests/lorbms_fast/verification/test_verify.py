"""`lorbms-fast verify` on the shipped golden numbers, and on folders that must fail."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lorbms_fast import losses
from lorbms_fast.cli import main
from lorbms_fast.config import LossConfig, OptimConfig
from lorbms_fast.engine import iteration
from lorbms_fast.engine.implementations import IMPLS
from lorbms_fast.errors import UserError
from lorbms_fast.optimizers import Optimizers
from lorbms_fast.verification.forward import fill_checks, forward_checks
from lorbms_fast.verification.golden import SHIPPED, Golden
from lorbms_fast.verification.gradients import CONVENTIONS, LAMBDAS, gradient_checks
from lorbms_fast.verification.operations import operation_checks


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED, tmp_path / "golden"))


def _out(checks) -> list[str]:
    return [f"{check.quantity}: {check.error} > {check.tolerance}" for check in checks if not check.passed]


def test_fill_rule():
    assert not _out(fill_checks(Golden.open(SHIPPED, torch.float64)))


@pytest.mark.parametrize("impl", IMPLS)
def test_operations_agree_with_the_authors_program(impl):
    assert not _out(operation_checks(Golden.open(SHIPPED, torch.float64), impl))


@pytest.mark.parametrize("impl", IMPLS)
def test_forward_pass_agrees_with_the_authors_program(impl):
    checks = list(forward_checks(Golden.open(SHIPPED, torch.float64), impl))
    assert len(checks) == 28
    assert not _out(checks)


@pytest.mark.slow
@pytest.mark.parametrize("impl", IMPLS)
def test_gradients_agree_with_the_authors_program(impl):
    checks = list(gradient_checks(Golden.open(SHIPPED, torch.float64), impl))
    assert len(checks) == 18
    assert not _out(checks)


@pytest.mark.parametrize("impl", [pytest.param("reference", marks=pytest.mark.slow), "fast"])
def test_gradients_of_the_default_convention_agree(impl, copy):
    kept = {"names_gen", "names_cls", "names_dsc", "L_G_one_const", "L_cls_one_const", "L_D_const"}
    with np.load(copy / "grads.npz") as arrays:
        np.savez(copy / "grads.npz", **{name: arrays[name] for name in kept})
    checks = list(gradient_checks(Golden.open(copy, torch.float64), impl))
    assert len(checks) == 5
    assert not _out(checks)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lambdas", "schedule", "convention"), [("one", "once", "const"), ("quarter", "author", "through")]
)
def test_an_iteration_goes_as_the_authors_program(lambdas, schedule, convention, monkeypatch):
    """Losses before it, after each of its four updates, and after u has moved on.

    In float32 they soon differ by tenths, as kinks flip; in float64 by less than a hundredth.
    """
    golden = Golden.open(SHIPPED, torch.float64)
    with np.load(SHIPPED / "steps.npz") as steps:
        expected, columns = steps[f"losses_{lambdas}_{schedule}_{convention}"][:6], steps["columns"].tolist()
    impl, batch, networks = IMPLS["fast"], golden.batch(), golden.networks("fast", CONVENTIONS[convention]).train()
    optim = OptimConfig(sn_power_iterations=(9, 2) if schedule == "author" else (1, 1))
    seen: list[list[float]] = []

    def look() -> None:
        with torch.no_grad():
            L, s = impl.generator_losses(networks, batch, LossConfig())
            D = losses.called_real(networks.dsc(batch.I_ref)), losses.called_fake(networks.dsc(s.I_mix))
        seen.append([float(x) for x in (L.L_rec_hat, L.L_rec_prime, L.L_adv, L.L_cls, *D)])

    update = iteration.update
    monkeypatch.setattr(iteration, "update", lambda *of: (update(*of), look()))
    look()
    optimizers = Optimizers.of(networks, optim)
    iteration.iterate(impl, networks, optimizers, [batch], LossConfig(lambdas=LAMBDAS[lambdas]), optim)
    look()
    assert columns == ["L_rec_hat", "L_rec_prime", "L_adv", "L_cls_one", "L_D_real", "L_D_fake"]
    np.testing.assert_allclose(seen, expected, rtol=0.03)


def test_a_gradient_that_is_no_number_is_found(monkeypatch):
    """Also in a parameter that is not the first of its network: here the root's at 0."""

    class Discriminator(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = (torch.nn.Parameter(torch.tensor(value)) for value in (1.0, 0.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.a * x + 0 * self.b.sqrt()

    image, dsc = torch.ones(1), Discriminator()
    parameters = torch.nn.ModuleDict({"dsc": dsc}).named_parameters
    of_a = 2 * torch.tensor(1.0).sigmoid().item() - 1
    golden = SimpleNamespace(
        gradients={"names_dsc": np.array(["dsc.a", "dsc.b"]), "L_D_const": np.full((2, 4), of_a)},
        batch=lambda: SimpleNamespace(I_ref=image),
        networks=lambda impl, normalize: SimpleNamespace(dsc=dsc, named_parameters=parameters),
        fill=lambda name, shape: torch.ones(shape),
    )
    losses_of = SimpleNamespace(generator_losses=lambda *of: (None, SimpleNamespace(I_mix=image)))
    monkeypatch.setitem(IMPLS, "fast", losses_of)
    (check,) = gradient_checks(golden, "fast")
    assert not check.passed


def test_another_prefix_changes_every_value(copy):
    (copy / "prefix.txt").write_text("other.\n")
    assert len(_out(fill_checks(Golden.open(copy, torch.float64)))) == 6


def test_a_wrong_number_is_found(copy):
    with np.load(copy / "ops.npz") as arrays:
        changed = dict(arrays)
    changed["resize_conv1.y"][0, 0, 0, 0] += 1e-3
    np.savez(copy / "ops.npz", **changed)
    out = _out(operation_checks(Golden.open(copy, torch.float64), "reference"))
    assert [line.split(":")[0] for line in out] == ["resize_conv1.y"]


def test_folder_without_golden_numbers_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["verify", "--golden", str(tmp_path)])
    assert exit_.value.code == 2
    assert "forward.npz" in capsys.readouterr().err


def test_damaged_file_is_named(copy):
    (copy / "ops.npz").write_bytes((copy / "ops.npz").read_bytes()[:1000])
    with pytest.raises(UserError, match=r"ops\.npz"):
        list(operation_checks(Golden.open(copy, torch.float64), "reference"))


def test_a_missing_array_is_named(copy):
    np.savez(copy / "forward.npz", dist=np.zeros((4, 4), np.float32))
    with pytest.raises(UserError, match="I_ref"):
        list(fill_checks(Golden.open(copy, torch.float64)))


def test_exit_status_1_when_a_number_is_out(copy, monkeypatch, capsys):
    parameters = json.loads((copy / "params.json").read_text())
    parameters[0]["sum"] += 1
    (copy / "params.json").write_text(json.dumps(parameters))
    for name in ("grads.npz", "ops.npz"):
        with np.load(copy / name) as arrays:
            np.savez(copy / name, **{key: arrays[key] for key in arrays if key.startswith(("names", "mixing"))})
    named = copy.rename(copy.with_name("my [bw] [b]")).name  # of which markup would leave "my"
    monkeypatch.chdir(copy.parent)
    with pytest.raises(SystemExit) as exit_:
        main(["verify", "--golden", named, "--impl", "reference"])
    assert exit_.value.code == 1
    told = capsys.readouterr().out
    assert "OUT" in told
    assert named in told
