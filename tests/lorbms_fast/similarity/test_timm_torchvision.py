"""Features of timm's and torchvision's models."""

from pathlib import Path

import pytest
import torch

from lorbms_fast.errors import UserError
from lorbms_fast.similarity.features import timm_torchvision


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_a_torchvision_of_another_torch_is_said_on_one_line(library, monkeypatch):
    def refuse(name):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(timm_torchvision.importlib, "import_module", refuse)
    with pytest.raises(UserError, match="reinstall the two together: pip install") as refused:
        timm_torchvision.load(library, "resnet18", Path("weights.pth"), torch.device("cpu"))
    assert "\n" not in str(refused.value)
