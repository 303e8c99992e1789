"""apex's Adam as we call it takes the steps of ours: its published formula stands in for its kernel."""

import sys
import types

import torch

from bench.gpu import apex


class PublishedFormula(torch.optim.Optimizer):
    """`p -= lr (m / c1) / (sqrt(v / c2) + eps)`, both corrections 1 when they are off; rate on the device."""

    def __init__(self, params, lr, bias_correction, betas, eps, capturable):
        assert capturable
        super().__init__(params, {"lr": torch.tensor(lr), "on": bias_correction, "betas": betas, "eps": eps, "t": 0})
        for parameter in self.param_groups[0]["params"]:
            self.state[parameter] = {"m": torch.zeros_like(parameter), "v": torch.zeros_like(parameter)}

    @torch.no_grad()
    def step(self):
        (group,) = self.param_groups
        group["t"] += 1
        corrections = [1 - beta ** group["t"] if group["on"] else 1.0 for beta in group["betas"]]
        for p in group["params"]:
            m, v = self.state[p]["m"], self.state[p]["v"]
            m.lerp_(p.grad, 1 - group["betas"][0])
            v.lerp_(p.grad**2, 1 - group["betas"][1])
            p -= group["lr"] * (m / corrections[0]) / ((v / corrections[1]).sqrt() + group["eps"])


def test_apex_told_to_correct_nothing_takes_our_steps(monkeypatch):
    monkeypatch.setitem(sys.modules, "apex.optimizers", types.SimpleNamespace(FusedAdam=PublishedFormula))
    monkeypatch.setattr(apex.Adam, "EPS", 0.1)  # where eps stands shows only if it is not small
    theirs, ours = apex.adam(torch.device("cpu"))
    before = theirs().clone()
    ours()
    for _ in range(4):
        torch.testing.assert_close(theirs(), ours(), rtol=1e-5, atol=1e-6)
    assert (theirs() - before).abs().max() > 1e-3
