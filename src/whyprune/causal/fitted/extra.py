"""The extra `causal`: DoWhy and causal-learn, imported when they are needed, kept quiet and made repeatable."""

import logging
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module
from io import StringIO
from typing import Any

import numpy as np

from whyprune.errors import MissingDependencyError
from whyprune.named import LIBRARIES


def required(module: str) -> Any:
    """An optional module, imported.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        with quiet():
            return import_module(module)
    except ImportError as error:
        name = LIBRARIES.get(module.partition(".")[0], module)
        raise MissingDependencyError(f"this needs {name}: pip install 'whyprune[causal]'") from error


@contextmanager
def quiet(seed: int | None = None) -> Iterator[None]:
    """Without these libraries' prints, logs, bars and warnings.

    Args:
        seed: they draw from the global generators of `random` and numpy: seeded with this, and put back afterwards.
    """
    level = logging.root.manager.disable
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    logging.disable(logging.CRITICAL)
    if seed is not None:
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        if seed is not None:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002
