"""What others do with an accelerated model: it goes on as the model itself would, whatever was known of it before."""

import copy
import io
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.utils import parametrizations, spectral_norm
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils._pytree import tree_leaves

from lorbms_fast.kernels import accelerate, restore
from lorbms_fast.kernels.accelerate.swapping import Passed
from lorbms_fast.kernels.instance_norm import cpp
from tests.kernels.accelerate.models import patch_discriminator

pytestmark = pytest.mark.skipif(not cpp.take(torch.ones(1, 1, 2, 2)), reason="no C++ compiler: norms stay torch's")


JOINED = (1, 2, 4, 5, 6, 7, 8, 9, 10, 11)


def made():
    """Each kind of layers that are joined, and a pool."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.LeakyReLU(0.2, True), nn.MaxPool2d(2),
        nn.ReflectionPad2d(1), nn.Conv2d(16, 16, 3, bias=False), nn.InstanceNorm2d(16, affine=True), nn.ReLU(),
        nn.Upsample(scale_factor=2), nn.Conv2d(16, 8, 3, padding=1), nn.BatchNorm2d(8), nn.GELU(),
    )  # fmt: skip
    return model.double(), torch.randn(2, 3, 18, 14, dtype=torch.float64)


def trained(model, x):
    """What comes out and is sent back, and the state after it."""
    x = x.clone().requires_grad_()
    y = model(x)
    wanted = [x, *(parameter for parameter in model.parameters() if parameter.requires_grad)]
    return [y.detach(), *torch.autograd.grad(y.square().mean(), wanted), *model.state_dict().values()]


def assert_close(found, expected):
    for f, e in zip(found, expected, strict=True):
        torch.testing.assert_close(f, e, rtol=1e-7, atol=1e-9)


def set_all(kind, **attributes):
    def change(model):
        for module in model.modules():
            if isinstance(module, kind):
                for name, value in attributes.items():
                    setattr(module, name, value)
        return model

    return change


def replace(i, layer):
    def change(model):
        torch.manual_seed(1)
        model[i] = layer().to(model[0].weight.dtype)
        return model

    return change


def own_padding(model):
    model[9]._conv_forward = lambda x, weight, bias: F.conv2d(F.pad(x, (1,) * 4, "circular"), weight, bias)
    return model


def forward_kept_by_a_wrapper(model):
    """As accelerate's (of Hugging Face) hooks keep it."""
    for module in model:
        module._old_forward = module.forward
        module.forward = partial(lambda module, x: 2 * module._old_forward(x), module)
    return model


def folded(model):
    """A batch norm in the convolution in front of it."""
    model[0], model[1] = fuse_conv_bn_eval(model[0].eval(), model[1].eval()), nn.Identity()
    return model


def folded_and_deleted(model):
    """As YOLOX does before it infers, in a sequence."""
    model[0] = fuse_conv_bn_eval(model[0].eval(), model[1].eval())
    return without(1)(model)


def without(*places):
    def change(model):
        for i in sorted(places, reverse=True):
            del model[i]
        return model

    return change


def with_hooks_that_change(model):
    for module in [*model.modules()]:
        if isinstance(module, nn.ReLU | nn.LeakyReLU | nn.GELU | nn.Upsample):
            module.register_forward_hook(lambda _module, _inputs, y: 2 * y)
            module.register_forward_pre_hook(lambda _module, inputs: (inputs[0] + 1,))
    return model


def deconvolution(model):
    """Simonyan's and Zeiler's: what goes back through an activation, without its derivative."""
    for module in [*model.modules()]:
        if isinstance(module, nn.ReLU | nn.GELU):
            module.register_full_backward_hook(lambda _module, _inputs, outputs: (outputs[0].clamp(min=0),))
    return model


CHANGES = {
    "slope": set_all(nn.LeakyReLU, negative_slope=0.5),
    "approximation": set_all(nn.GELU, approximate="tanh"),
    "activations not in place": set_all(nn.LeakyReLU, inplace=False),
    "momentum and eps": set_all(nn.modules.batchnorm._NormBase, momentum=0.5, eps=0.1),
    "enlarged by three": set_all(nn.Upsample, scale_factor=3),
    "enlarged smoothly": set_all(nn.Upsample, mode="bilinear"),
    "padded by two": set_all(nn.ReflectionPad2d, padding=(2, 2, 2, 2)),
    "dilated": set_all(nn.Conv2d, dilation=(2, 2)),
    "a forward of an object's own": set_all(nn.GELU, forward=F.softplus),
    "forwards kept by wrappers": forward_kept_by_a_wrapper,
    "a convolution's own padding": own_padding,
    "another activation": replace(2, nn.Softplus),
    "no activation": replace(7, nn.Identity),
    "another norm": replace(6, lambda: nn.GroupNorm(4, 16)),
    "another convolution behind a pad": replace(5, lambda: nn.Conv2d(16, 16, 3)),
    "another convolution behind enlarging": replace(9, lambda: nn.Conv2d(16, 8, 3)),
    "another way of enlarging": replace(8, lambda: nn.Upsample(scale_factor=2, mode="bilinear")),
    "norms over several machines": nn.SyncBatchNorm.convert_sync_batchnorm,
    "a norm folded into a convolution": folded,
    "a norm folded into a convolution and deleted": folded_and_deleted,
    "deleted norm": without(6),
    "deleted norm and activation": without(6, 7),
    "deleted pad and enlarging": without(4, 8),
    "cut behind a norm": lambda model: model[:7],
    "a new sequence without activations": lambda model: nn.Sequential(*(m for m in model if "LU" not in str(m))),
    "a container of containers": lambda model: nn.Sequential(nn.Sequential(*model[:2]), nn.Sequential(*model[2:])),
    "hooks that change activations": with_hooks_that_change,
    "hooks that change gradients": deconvolution,
    "a graph of it": torch.fx.symbolic_trace,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("how", ["the model", "a copy", "what was saved"])
def test_what_was_changed_since_counts(change, how):
    model, x = made()
    plain = change(copy.deepcopy(model))
    if "SyncBatchNorm" in str(plain):  # which trains on GPUs alone
        plain.eval()
    accelerate(model)
    assert [isinstance(model[i], Passed) for i in (2, 4, 7, 8, 11)] == [True] * 5
    if how == "a copy":
        model = copy.deepcopy(model)
    elif how == "what was saved":
        torch.save(model, file := io.BytesIO())
        model = torch.load(io.BytesIO(file.getvalue()), weights_only=False)
    changed = change(model).train(plain.training)
    assert_close(trained(changed, x), trained(plain, x))
    restore(changed)
    assert repr(changed) == repr(plain)
    assert not any("lorbms" in type(module).__module__ for module in changed.modules())


class NormByName(nn.Module):
    """Has a norm in a dictionary, and does without where there is none."""

    def __init__(self):
        super().__init__()
        self.norms, self.activation = nn.ModuleDict({"instance": nn.InstanceNorm2d(16)}), nn.ReLU()

    def forward(self, x):
        if "instance" in self.norms:
            x = self.norms["instance"](x)
        return self.activation(x)


@pytest.mark.parametrize(
    "delete",
    [lambda norms: norms.__delitem__("instance"), lambda norms: norms.pop("instance"), lambda norms: norms.clear()],
    ids=["del", "pop", "clear"],
)
def test_norms_that_were_deleted_by_name(delete):
    model, x = NormByName(), torch.randn(1, 16, 5, 5)
    accelerate(model)
    assert isinstance(model.activation, Passed)
    delete(model.norms)
    torch.testing.assert_close(model(x), x.relu())


@pytest.mark.parametrize(
    "attributes", [{"kernel_size": 3, "padding": 1}, {"ceil_mode": True}, {"return_indices": True}]
)
def test_pools_that_were_changed_since(attributes):
    model, x = nn.MaxPool2d(2), torch.randn(2, 16, 65, 67)
    accelerate(model)
    set_all(nn.MaxPool2d, **attributes)(model)
    torch.testing.assert_close(model(x), F.max_pool2d(x, **{"kernel_size": 2, "stride": 2, **attributes}))


def test_what_was_asked_for_may_change_and_stays_fast():
    model, _ = made()
    accelerate(model)
    kinds = [type(module) for module in model.modules()]
    model.train().eval().float().requires_grad_(False)
    set_all(nn.modules.batchnorm._NormBase, momentum=0.5, eps=0.1)(model)
    set_all(nn.ReLU, inplace=True)(model)
    set_all(nn.GELU, approximate="none", note="of somebody's")(model)
    model.extend([nn.Conv2d(8, 3, 1)])
    model[7] = model[7]
    model.register_forward_hook(lambda *_: None)
    wrapped = nn.ModuleDict({"a": nn.Sequential(model)})
    wrapped["a"] = nn.Sequential(nn.Identity(), model)
    assert [type(module) for module in model.modules()][: len(kinds)] == kinds


@pytest.mark.parametrize("kind", ["forward", "forward_pre", "full_backward", "full_backward_pre"])
@pytest.mark.parametrize("i", JOINED)
def test_hooks_made_later_see_what_they_watch(i, kind):
    model, x = made()
    set_all(nn.LeakyReLU, inplace=False)(model)
    plain, seen = copy.deepcopy(model), []
    accelerate(model)
    for each in (plain, model):
        register = getattr(each[i], f"register_{kind}_hook")
        handle = register(lambda _module, *values: seen.append(tree_leaves(values)))
        trained(each, x)
        handle.remove()
    assert_close(seen[1], seen[0])
    assert_close(trained(model, x), trained(plain, x))


@pytest.mark.skipif(not distributed.is_gloo_available(), reason="no gloo")
def test_layers_that_lie_on_several_machines_are_restored():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        model = nn.Sequential(nn.ConvTranspose2d(3, 3, 2, 2), nn.BatchNorm2d(3), nn.ReLU())
        plain, mesh, x = copy.deepcopy(model), init_device_mesh("cpu", (1,)), torch.randn(2, 3, 4, 4)
        accelerate(model)
        for each in (model, plain):
            for layer in each[:2]:
                fully_shard(layer, mesh=mesh)
        torch.testing.assert_close(model(x), plain(x))
        restore(model)
        assert [type(module).__name__ for module in model] == [type(module).__name__ for module in plain]
        assert isinstance(model[0], FSDPModule)
        torch.testing.assert_close(model(x), plain(x))
    finally:
        distributed.destroy_process_group()


@pytest.mark.skipif(not distributed.is_gloo_available(), reason="no gloo")
@pytest.mark.parametrize("normalize", [spectral_norm, parametrizations.spectral_norm])
def test_spectral_norms_of_layers_that_lie_on_several_machines(normalize):
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        model, x = patch_discriminator(normalize), torch.randn(1, 3, 32, 32)
        plain, mesh = copy.deepcopy(model), init_device_mesh("cpu", (1,))
        accelerate(model)
        for layer in (model[0], model[2]):
            fully_shard(layer, mesh=mesh)
        torch.testing.assert_close(model(x), plain(x))
    finally:
        distributed.destroy_process_group()


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.InstanceNorm2d(16), nn.ReLU(), nn.BatchNorm2d(16), nn.GELU()),
        nn.Sequential(nn.Upsample(scale_factor=2), nn.ReplicationPad2d(1), nn.Conv2d(16, 16, 3)),
        nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 16, 3, padding="same")),
        nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(16, 512, 4, 2, 1), nn.ConvTranspose2d(512, 16, 4, 2)),
        nn.Sequential(nn.Unflatten(1, (16, 1)), nn.Conv3d(16, 16, (1, 3, 3)), nn.ConvTranspose3d(16, 2, 2, 2)),
    ],
)
def test_layers_are_scripted(model):
    x = torch.randn(2, 16, 6, 6)
    expected = model(x)
    assert all(finding.why_not is None for finding in accelerate(model))
    torch.testing.assert_close(torch.jit.script(model)(x), expected)


def test_saved_tensors_that_hooks_round():
    """What loops would read as another type is memory of somebody else's."""
    model, x = nn.Sequential(nn.InstanceNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4), nn.SiLU()), torch.randn(2, 4, 128, 64)
    accelerate(model)
    gradients = []
    for pack in (torch.clone, torch.Tensor.float):
        z = x.clone().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
            y = model(z)
        gradients += torch.autograd.grad(y.sin().sum(), z)
    torch.testing.assert_close(*gradients)


@pytest.mark.filterwarnings("ignore:The tensor attributes:UserWarning")  # of torch's own hooks as well
@pytest.mark.parametrize("normalize", [spectral_norm, parametrizations.spectral_norm])
def test_spectral_norms_are_exported(normalize):
    model, x = patch_discriminator(normalize).eval(), torch.randn(1, 3, 32, 32)
    expected = model(x)
    accelerate(model)
    torch.export.save(torch.export.export(model, (x,)), file := io.BytesIO())
    torch.testing.assert_close(torch.export.load(io.BytesIO(file.getvalue())).module()(x), expected)
