"""A number of forward passes pays for whole images; a refusal names a number that does."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from whyprune.data.batches import Batch
from whyprune.errors import InputError
from whyprune.scoring.paid import paid_images


def batches(*sizes):
    return [Batch((torch.zeros(size, 1),), {}) for size in sizes]


EIGHTHS = st.integers(1, 1600).map(lambda n: n / 8)  # products are exact


@given(EIGHTHS, st.integers(1, 3), EIGHTHS)
def test_as_many_images_as_are_paid_for_or_a_message_with_what_would_do(each, fewest, passes):
    try:
        found = paid_images(batches(3, 4), passes, each, fewest=fewest)
    except InputError as error:
        least = float(re.search(r"give at least (\d+)$", str(error)).group(1))
        assert passes < least
        found = paid_images(batches(3, 4), least, each, fewest=fewest)
        assert sum(map(len, found)) >= fewest
    else:
        images = sum(map(len, found))
        assert images * each <= passes
        assert images == 7 or (images + 1) * each > passes


def test_without_a_bound_or_without_images_nothing_is_refused():
    given_batches = batches(3, 4)
    assert paid_images(given_batches, None, 5.0) == given_batches
    assert paid_images([], 10.0, 5.0) == []  # that there is no data is said where data is needed


@pytest.mark.parametrize(
    ("fewest", "words"), [(1, "pay for gradients on one image:"), (2, "pay for gradients on 2 im")]
)
def test_the_message_says_what_for(fewest, words):
    with pytest.raises(InputError, match=f"0.5 forward passes do not {words}"):
        paid_images(batches(3), 0.5, 1.0, fewest=fewest, work="gradients on")
