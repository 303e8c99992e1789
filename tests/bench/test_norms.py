"""The grid of norms runs, and counts what is kept."""

import sys

import pytest
import torch

from bench import norms


def test_it_prints_a_table(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["norms", "--small", "--rounds", "1", "--activations", "none", "relu"])
    norms.main()
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith("| 1 x 3 x")]) == 24
    assert lines[-1].endswith("torch's own.")


@pytest.mark.parametrize("activation", ["relu", "silu", "gelu"])
def test_what_is_kept(activation):
    x = torch.randn(2, 3, 32, 32).requires_grad_()
    maps = x.numel() * 4 / 1e6
    theirs, ours = (norms.kept_megabytes(x, make(x.shape, True, activation)) for make in (norms.theirs, norms.ours))
    assert maps <= ours < 1.1 * maps
    assert theirs >= 2 * maps
