"""Which form of an operation runs."""

import sys

import pytest
import torch

from lorbms_fast import kernels
from lorbms_fast.kernels import _common
from lorbms_fast.kernels._common import dispatch
from lorbms_fast.kernels._common.dispatch import select_impl


def test_choosing_a_form():
    x = torch.ones(1)
    assert select_impl(None, x) == "fused"
    with kernels.use_impl("reference"):
        assert select_impl(None, x) == "reference"
        assert select_impl("fused", x) == "fused"
    assert select_impl(None, x) == "fused"
    with pytest.raises(ValueError, match="impl 'cuda'"):
        select_impl("cuda", x)


@pytest.mark.skipif(not dispatch.HAS_TRITON, reason="no Triton here")
@pytest.mark.parametrize("lacks", ["Autotuner", "jit", None])
def test_a_triton_of_another_kind_is_told_of_and_left_alone(lacks, monkeypatch):
    import triton

    monkeypatch.delitem(sys.modules, "lorbms_fast.kernels._common.autotune")
    monkeypatch.setattr(_common, "autotune", _common.autotune)  # as importing anew sets it anew
    if lacks is None:
        assert dispatch.found_triton()
        return
    monkeypatch.delattr(triton.runtime if lacks == "Autotuner" else triton, lacks)
    with pytest.warns(RuntimeWarning, match=f"this Triton is not one.*AttributeError: .*{lacks}.*fused forms run"):
        assert not dispatch.found_triton()


def test_a_gpus_tests_run_kernels_natively():
    assert not dispatch.INTERPRETED  # only `interpreted` may say so, for the length of a test


def test_triton_is_refused_where_it_cannot_run(monkeypatch):
    x = torch.ones(1)
    monkeypatch.setattr(dispatch, "HAS_TRITON", False)
    with pytest.raises(ValueError, match="needs the package triton"):
        select_impl("triton", x)
    monkeypatch.setattr(dispatch, "HAS_TRITON", True)
    monkeypatch.setattr(dispatch, "INTERPRETED", False)
    with pytest.raises(ValueError, match="not on cpu"):
        select_impl("triton", x)
    monkeypatch.setattr(dispatch, "INTERPRETED", True)
    assert select_impl("triton", x) == "triton"
    with pytest.raises(ValueError, match="float64"):
        select_impl("triton", x.double())


class OnCuda(torch.Tensor):
    """On a GPU, as it says."""

    is_cuda = True
    device = torch.device("cuda", 0)


@pytest.fixture
def capability(monkeypatch):
    """The GPU's compute capability, to be changed."""
    found = [9, 0]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: tuple(found))
    monkeypatch.setattr(dispatch, "_supported", {})
    monkeypatch.setattr(dispatch, "HAS_TRITON", True)
    monkeypatch.setattr(dispatch, "INTERPRETED", False)
    return found


def test_auto_is_triton_on_cuda_only(capability):
    assert select_impl("auto", torch.ones(1)) == "fused"
    assert select_impl("auto", torch.ones(1).as_subclass(OnCuda)) == "triton"
    assert select_impl("auto", torch.ones(1, dtype=torch.float64).as_subclass(OnCuda)) == "fused"


def test_auto_is_fused_on_a_gpu_that_triton_does_not_support(capability):
    capability[:] = 7, 5
    x = torch.ones(1).as_subclass(OnCuda)
    assert (select_impl("auto", x), dispatch.kernels_run_on(x.device)) == ("fused", False)
    assert select_impl("triton", x) == "triton"  # as asked
    capability[:] = 8, 0
    other = torch.device("cuda", 1)
    assert [dispatch.kernels_run_on(device) for device in (x.device, other, torch.device("cpu"))] == [
        False,
        True,
        False,
    ]


def test_auto_is_triton_for_tensors_without_values(capability, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: pytest.fail("asked"))
    assert select_impl("auto", torch.ones(1).as_subclass(OnCuda)) == "triton"


def test_choosing_breaks_no_graph():
    def chosen(x):
        return x + len(select_impl("auto", x)) + len(select_impl(None, x))

    x = torch.ones(2)
    assert torch.equal(torch.compile(chosen, backend="eager", fullgraph=True)(x), chosen(x))


def test_the_old_name_of_the_fused_form_is_understood():
    with pytest.warns(DeprecationWarning, match="now called 'fused'"):
        assert select_impl("torch", torch.ones(1)) == "fused"


def test_an_unknown_form_is_refused_at_once():
    with pytest.raises(ValueError, match="impl 'cuda'"), kernels.use_impl("cuda"):
        pass
