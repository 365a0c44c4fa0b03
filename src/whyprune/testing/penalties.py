"""The contract of a penalty, as a check that anybody can run on their own."""

import copy
import math

import torch
from torch import Tensor, nn

from whyprune.recovery.penalty import Penalty, PenaltyFactory
from whyprune.structure.trace import trace

WIDTH = 6


def check_penalty(factory: PenaltyFactory) -> None:
    """Makes a penalty of a small convolutional network with batch norm, and checks what every penalty must keep.

    It gives a scalar, finite and 0 or more, on the model's device and of its type, in single and in double precision;
    unless it is 0 throughout, it has a finite gradient that is not 0 everywhere, where a unit is all zeros as well;
    calling it leaves the model, its modes, gradients and torch's generator alone, and gives the same number again; and
    it follows the model's weights as they change in place.

    Args:
        factory: the penalty's factory.

    Raises:
        AssertionError: the contract is broken; the message says where.
    """
    network = trace(_network().eval(), torch.zeros(2, 3, 6, 6))
    for dtype in (torch.float32, torch.float64):
        model = copy.deepcopy(network.model).to(dtype).train()
        penalty = factory(model, network)
        value = _checked(penalty, model)
        _check_gradient(value, model)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(0.5)
        assert value == 0 or float(penalty().detach()) != value, "it does not follow the model's weights"
        with torch.no_grad():
            for path in ("first.weight", "norm.weight", "norm.bias", "norm.running_mean"):
                _tensor(model, path)[0] = 0
            _tensor(model, "second.weight")[:, 0] = 0
        value = _checked(penalty, model)
        _check_gradient(value, model)
        act = getattr(penalty, "after_step", None)
        if act is not None:
            act(1, 2)
            assert all(bool(p.isfinite().all()) for p in model.parameters()), "after_step leaves weights not finite"


def _checked(penalty: Penalty, model: nn.Module) -> float:
    """The value, once it is known to be one and to have left everything else alone; its gradients are the model's."""
    own = next(model.parameters())
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    model.zero_grad()
    generator = torch.get_rng_state()
    found, again = penalty(), penalty()
    assert torch.equal(generator, torch.get_rng_state()), "it draws from torch's global generator"
    assert isinstance(found, Tensor), f"it gives a {type(found).__name__}, not a tensor"
    assert found.shape == (), f"it gives a tensor of shape {tuple(found.shape)}, not a scalar"
    assert found.dtype == own.dtype, f"it gives {found.dtype} for a model of {own.dtype}"
    assert found.device == own.device, f"it gives a number on {found.device} for a model on {own.device}"
    value = float(found.detach())
    assert math.isfinite(value), f"it is {value}"
    assert value >= 0, f"it is {value}, below 0"
    assert float(again.detach()) == value, "it gives another number when it is called again"
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), f"calling it changed the model's {name}"
    assert [m.training for m in model.modules()] == modes, "calling it changed the model's mode"
    assert all(p.grad is None for p in model.parameters()), "calling it left gradients in the model"
    assert found.requires_grad or value == 0, "it has no gradient: it is not computed from the model's parameters"
    if found.requires_grad:
        found.backward()  # type: ignore[no-untyped-call]
    return value


def _check_gradient(value: float, model: nn.Module) -> None:
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    for name, gradient in gradients.items():
        assert bool(gradient.isfinite().all()), f"its gradient of {name} is not finite; is it a root at 0?"
    moves = any(bool((gradient != 0).any()) for gradient in gradients.values())
    assert moves or value == 0, "its gradient is 0 everywhere: it moves nothing"


def _tensor(model: nn.Module, path: str) -> Tensor:
    found: Tensor = model.state_dict()[path]
    return found


def _network() -> nn.Module:
    """(B, 3, 6, 6) to two logits; the units of `first` are written, normalised, and read by `second`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential()
        model.add_module("first", nn.Conv2d(3, WIDTH, 3, padding=1, bias=False))
        model.add_module("norm", nn.BatchNorm2d(WIDTH))
        model.add_module("act", nn.ReLU())
        model.add_module("second", nn.Conv2d(WIDTH, 4, 3, padding=1))
        model.add_module("pool", nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
        model.add_module("head", nn.Linear(4, 2))
        return model
