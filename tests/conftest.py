"""Networks as small as those of the tests run fastest on one thread; no test is about how long it takes."""

import pytest
import torch
from hypothesis import settings

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
