"""Random removals from random convolutional networks are right."""

import pytest
from hypothesis import given
from random_networks import assert_all_drawn, checked, image_networks, seeds, several

pytestmark = pytest.mark.usefixtures("unlike_networks")


@given(image_networks(attention=False), seeds)
@several("images")
def test_random_convolutional_networks_are_right_after_random_removals(model, seed):
    checked("images", model, seed)


def test_as_many_networks_are_drawn_as_are_asked_for():
    assert_all_drawn("images")
