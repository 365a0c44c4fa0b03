"""Fixtures for tests that capture many networks."""

from importlib import import_module

import pytest


@pytest.fixture(scope="module")
def unlike_networks():
    """For small networks that are all different: the exporter keeps no results of operations.

    With a free batch size, writing them down for later takes as long as the rest of an export, and no operation of
    these networks is there twice. What is captured is the same.
    """
    config = import_module("torch._dynamo.config")
    if not hasattr(config, "fake_tensor_cache_enabled"):
        yield
        return
    with config.patch(fake_tensor_cache_enabled=False):
        yield
