"""Networks as small as those of the tests run fastest on one thread; no test is about how long it takes."""

from typing import Any

import pytest
import torch
from hypothesis import settings
from torch import nn

from whyprune.models.weights import fingerprint
from whyprune.structure.network import Network
from whyprune.structure.trace import trace

settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


SLOWEST = (
    *("test_random_images.py", "test_every_method.py", "test_random_tokens.py", "test_methods.py", "test_scorers.py"),
    *("test_random_attended.py", "test_device_table.py", "test_distributed.py", "test_constrained.py"),
)
"""Files are handed to workers whole: the longest come first, so that none is left for one worker in the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first, in their order; all others stay as they are."""
    place = {name: number for number, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


TRACED: dict[tuple[Any, ...], tuple[nn.Module, Network]] = {}


def _traced_once(model: nn.Module, example_inputs: Any, **about: Any) -> Network:
    if not isinstance(example_inputs, torch.Tensor):
        return trace(model, example_inputs, **about)
    key = (id(model), fingerprint(model), str(about), example_inputs.shape, example_inputs.numpy().tobytes())
    if key not in TRACED:
        TRACED[key] = model, trace(model, example_inputs, **about)  # the model stays, and its id with it
    return TRACED[key][1]


@pytest.fixture
def traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs on the same network, weights and example share one trace: for tests of what comes behind it."""
    monkeypatch.setattr("whyprune.pipeline.start.trace", _traced_once)
