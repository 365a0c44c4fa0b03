"""Random removals from random networks over tokens are right."""

import pytest
from hypothesis import given
from random_networks import assert_all_drawn, checked, seeds, several, token_networks

pytestmark = pytest.mark.usefixtures("unlike_networks")


@given(token_networks(), seeds)
@several("tokens")
def test_random_networks_over_tokens_are_right_after_random_removals(model, seed):
    checked("tokens", model, seed)


def test_as_many_networks_are_drawn_as_are_asked_for():
    assert_all_drawn("tokens")
