"""Random removals from random networks with attention over places are right."""

import pytest
from hypothesis import given
from random_networks import assert_all_drawn, checked, image_networks, seeds, several

pytestmark = pytest.mark.usefixtures("unlike_networks")


@given(image_networks(attention=True), seeds)
@several("attended")
def test_random_networks_with_attention_over_places_are_right_after_random_removals(model, seed):
    checked("attended", model, seed)


def test_as_many_networks_are_drawn_as_are_asked_for():
    assert_all_drawn("attended")
