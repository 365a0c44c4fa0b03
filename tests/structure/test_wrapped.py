"""Wrappers are looked through; what has to be pruned earlier, and what cannot be copied, is refused in words."""

import json
import threading

import pytest
import torch
from torch import nn

import whyprune as wp
from whyprune.allocation import Space, check_reachable
from whyprune.errors import BudgetError, InputError
from whyprune.models.inner import inner
from whyprune.structure.copies import duplicate
from whyprune.structure.wrapped import prepared_for_quantisation, unwrapped

X = torch.randn(8, 3, 8, 8)


def small():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)).eval()


class Holding(nn.Module):
    def __init__(self, held):
        super().__init__()
        self.body, self.part = small(), nn.Identity()
        self.part.held = held

    def forward(self, x):
        return self.part(self.body(x))


class Open(nn.Module):
    """A signature of any number of inputs."""

    def __init__(self):
        super().__init__()
        self.body = small()

    def forward(self, *inputs):
        return self.body(inputs[0]) + self.body(inputs[1])


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile, lambda m: torch.compile(nn.DataParallel(m))])
def test_what_is_wrapped_is_pruned_as_the_network_inside(wrap):
    model = small()
    wrapped = wrap(model).eval()
    assert inner(wrapped) is unwrapped(wrapped) is model
    assert wp.trace(wrapped, X).model is model
    settings = wp.Settings(refute=False, latency=False)
    found = wp.prune(
        wrapped, [X, X], budget=wp.Budget(macs=0.6), example_inputs=X[:2], settings=settings, progress=False
    )
    assert type(found.model) is nn.Sequential
    assert any("comes back without it" in note for note in found.measurements.notes)


def test_any_number_of_inputs_runs_at_any_batch_size():
    network = wp.trace(Open().eval(), (X, X))
    assert network.graph.batch_size is None
    assert len(network.units) == 14


def test_a_graph_module_is_pruned_like_any_module():
    model = torch.fx.symbolic_trace(small())
    network = wp.trace(model, X)
    pruned = wp.remove(network, network.units[:3])
    assert torch.allclose(pruned(X), wp.masked(network, network.units[:3])(X), atol=1e-5)


def quantised():
    return pytest.importorskip("torch.ao.quantization").quantize_dynamic(small(), {nn.Linear})


def scripted_part():
    model = small()
    model[0] = torch.jit.script(model[0])
    return model.eval()


def float_tensor_of_integers():
    model = small()
    model.register_buffer("table", torch.quantize_per_tensor(torch.rand(3), 0.1, 0, torch.qint8))
    return model


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: torch.jit.trace(small(), X), r"TorchScript.*give the nn.Module that it was made from"),
        (lambda: torch.jit.script(small()), "TorchScript"),
        (scripted_part, "TorchScript.*or holds some"),
        (quantised, r"quantised \('6' is a Linear\): prune the float model first"),
        (float_tensor_of_integers, r"quantised \(table is a Tensor, torch.qint8\)"),
        (lambda: "resnet.pt", r"the model is a str: give a torch.nn.Module \(load its weights"),
        (lambda: small().state_dict(), "the model is a OrderedDict"),
        (lambda: nn.Sequential, "the class Sequential: give an instance"),
        (lambda: None, "the model is a NoneType"),
    ],
)
def test_what_cannot_be_pruned_as_it_is_says_what_to_give(make, words):
    with pytest.raises(InputError, match=words):
        wp.trace(make(), X)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_model_prepared_for_quantisation_is_refused_by_prune_and_explained_by_trace():
    library = pytest.importorskip("torch.ao.quantization")
    model = small().train()
    model.qconfig = library.get_default_qat_qconfig("fbgemm")
    library.prepare_qat(model, inplace=True)(X)
    model.eval()
    assert not prepared_for_quantisation(small())
    with pytest.raises(InputError, match=r"prepared for quantisation.*prune the float model first"):
        wp.prune(model, [X], budget=wp.Budget(macs=0.5), example_inputs=X)
    with pytest.raises(BudgetError, match=r"nothing can be removed.*fake_quant.*prune the float model first"):
        check_reachable(Space(wp.trace(model, X)), wp.Budget(macs=0.5))


@pytest.mark.parametrize("held", [json, threading.Lock(), threading.RLock(), {"deep": [json]}])
def test_modules_locks_and_files_are_shared_by_copies(held):
    model = Holding(held).eval()
    assert len(wp.trace(model, X).units) == 14
    copied = duplicate(model)
    same = copied.part.held["deep"][0] is json if isinstance(held, dict) else copied.part.held is held
    assert same
    assert copied.body[0].weight is not model.body[0].weight


def test_an_open_file_is_shared(tmp_path):
    with (tmp_path / "log").open("w") as file:
        assert duplicate(Holding(file)).part.held is file


def test_an_attribute_that_cannot_be_copied_is_named_at_the_trace():
    with pytest.raises(InputError, match=r"attribute 'part.held' \(generator\) cannot be copied.*keep it outside"):
        wp.trace(Holding(x for x in "ab").eval(), X)
