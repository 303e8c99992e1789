"""Tests of `accelerate` are of small models."""

import pytest

from lorbms_fast.kernels.accelerate.rules import spectral_norm


@pytest.fixture(autouse=True)
def small_weights_are_normalized_together(monkeypatch):
    monkeypatch.setattr(spectral_norm, "FEW", 0)
