"""Names of devices: what is composed is taken apart again, and what is unknown is refused with the nearest names."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whyprune.devices.names import RUNTIMES, DeviceName, parse
from whyprune.devices.profile import profiles
from whyprune.errors import InputError

PLACES = (*profiles(), "ort", "my-ncnn-board", "x-2")
NAMES = st.builds(
    DeviceName,
    st.sampled_from(PLACES),
    st.none() | st.sampled_from(RUNTIMES),
    st.none() | st.integers(1, 512),
    st.none() | st.integers(1, 512),
)


@given(NAMES)
def test_a_name_means_what_it_is_composed_of(name):
    assert parse(str(name), PLACES) == name


@given(st.text(alphabet="abcdefg-127tbop", max_size=20))
def test_any_text_is_a_device_or_refused(text):
    with suppress(InputError):
        assert parse(text, PLACES).place in PLACES


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pi9", ["'pi4'", "local", "PLACE"]),
        ("locla-ort", ["'local-ort'"]),
        ("local-onnxruntime", ["'onnxruntime' is no runtime", "ort, openvino"]),
        ("local-openvin-2t", ["'openvino'"]),
        ("local-ort-99999t", ["99999", "at most"]),
        ("", ["no device ''"]),
    ],
)
def test_an_unknown_name_is_answered_with_near_ones(name, said):
    with pytest.raises(InputError) as caught:
        parse(name, profiles())
    assert all(words in str(caught.value) for words in said), caught.value
