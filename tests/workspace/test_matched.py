"""The network and its weights decide how many channels images have."""

import pytest
import torch
from torch import nn

from whyprune.data import DataSource, TensorSplit
from whyprune.errors import FormatError
from whyprune.models import BUILT_INS, load_model
from whyprune.workspace import matched
from whyprune.workspace.matched import network_for
from whyprune.workspace.setup import choose_normalization


def source(channels):
    images = torch.randint(0, 256, (8, channels, 8, 8), dtype=torch.uint8)
    part = TensorSplit("made up", images, [i % 2 for i in range(8)])
    return DataSource("made up", part, part, ("a", "b"))


def saved(path, channels):
    model = load_model("digits_cnn", num_classes=2, image_shape=(channels, 8, 8))
    torch.save(model.state_dict(), path)
    return path


@pytest.mark.parametrize("trained", [1, 3])
@pytest.mark.parametrize("given", [1, 3])
def test_images_get_the_channels_that_the_weights_were_trained_on(tmp_path, trained, given):
    network, data, said = network_for("digits_cnn", saved(tmp_path / "w.pt", trained), 2, source(given))
    assert data.image_shape == (trained, 8, 8)
    assert network(data.train[0][0][None].float()).shape == (1, 2)
    assert bool(said) == (trained != given)


def test_a_network_of_fixed_channels_is_asked_by_running_it(monkeypatch):
    fixed = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 2))
    monkeypatch.setattr(matched, "load_model", lambda *_, **__: fixed)
    network, data, said = network_for("mine:net", None, 2, source(1))
    assert network is fixed
    assert data.image_shape[0] == 3
    assert "three equal channels" in said[0]


def test_weights_that_fit_neither_way_are_refused_as_for_the_data_itself(tmp_path):
    torch.save({"conv.weight": torch.ones(2)}, tmp_path / "w.pt")
    assert "digits_cnn" in BUILT_INS
    with pytest.raises(FormatError, match="does not fit"):
        network_for("digits_cnn", tmp_path / "w.pt", 2, source(1))


def test_one_mean_serves_three_equal_channels():
    used = choose_normalization("mine:net", source(1).with_channels(3), None, [0.5], [0.25])
    assert used is not None
    assert used.mean == (0.5, 0.5, 0.5)
    assert used.std == (0.25, 0.25, 0.25)
