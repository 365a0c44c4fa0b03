from collections import namedtuple

import pytest
import torch

from whyprune.data.outputs import logits_of
from whyprune.errors import InputError

LOGITS, AUXILIARY = torch.zeros(2, 3), torch.ones(2, 5)
Inception = namedtuple("Inception", ["logits", "aux"])


class Output:
    logits = LOGITS


def model_output():
    outputs = pytest.importorskip("transformers.modeling_outputs")
    return outputs.ImageClassifierOutput(loss=AUXILIARY.sum(), logits=LOGITS)


@pytest.mark.parametrize(
    "output",
    [
        LOGITS,
        (LOGITS, AUXILIARY),
        [None, LOGITS, AUXILIARY],
        {"aux": AUXILIARY, "logits": LOGITS},
        Inception(LOGITS, AUXILIARY),
        Output(),
        model_output,
    ],
)
def test_logits_are_found(output):
    output = output() if output is model_output else output
    assert logits_of(output) is LOGITS or torch.equal(logits_of(output), LOGITS)


@pytest.mark.parametrize(
    ("output", "named"),
    [
        ({"boxes": LOGITS}, "boxes"),
        ({"logits": None}, "logits"),
        ((), "tuple"),
        (None, "NoneType"),
        ("text", "str"),
        (3.0, "float"),
    ],
)
def test_an_output_without_logits_is_described(output, named):
    with pytest.raises(InputError, match=named):
        logits_of(output)
