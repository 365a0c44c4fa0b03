"""Names become what `prune` takes: loaders over the right images, the right normalisation, the right views."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from whyprune.data import Augmentation, DataSource, TensorSplit, calibration_indices, load_source
from whyprune.errors import FormatError, InputError
from whyprune.models import default_normalization, load_model
from whyprune.workspace.configs import DataConfig, NetworkConfig
from whyprune.workspace.recipe import Recipe, fresh_network, split_loader
from whyprune.workspace.setup import (
    choose_augmentation,
    choose_normalization,
    network_and_example,
    prepare,
)

DIGITS = load_source("digits")


def source(images):
    split = TensorSplit("some", images, [0] * len(images))
    return DataSource("some", split, split)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    model = load_model("digits_cnn", num_classes=10, image_shape=(1, 8, 8))
    save_file(model.state_dict(), path)
    return path


@pytest.fixture
def card(tmp_path):
    (tmp_path / "w.json").write_text(json.dumps({"mean": [0.1], "std": [0.2]}))
    return tmp_path / "w.safetensors"


def test_flags_win_over_the_card_and_the_card_over_the_built_in(card, tmp_path):
    stated = choose_normalization("digits_cnn", DIGITS, card, [0.3], [0.4])
    assert (stated.mean, stated.std) == ((0.3,), (0.4,))
    assert choose_normalization("digits_cnn", DIGITS, card).mean == (0.1,)
    own = default_normalization("digits_cnn")
    assert choose_normalization("digits_cnn", DIGITS, tmp_path / "no_card.safetensors") == own
    assert choose_normalization("digits_cnn", DIGITS) == own


def test_a_card_that_states_nothing_is_no_reason_to_guess(tmp_path):
    (tmp_path / "w.json").write_text("{}")
    with pytest.raises(FormatError, match="--mean and --std"):
        choose_normalization("digits_cnn", DIGITS, tmp_path / "w.safetensors")


def test_normalised_data_is_left_alone():
    ready = source(torch.zeros(2, 1, 8, 8))
    assert choose_normalization("digits_cnn", ready) is None
    with pytest.raises(InputError, match="comes normalised"):
        choose_normalization("digits_cnn", ready, mean=[0.1], std=[0.2])


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1, 8, 8), Augmentation(1, flip=False)),
        ((3, 32, 32), Augmentation(4, flip=True)),
        ((1, 28, 28), Augmentation(3, flip=False)),
        ((3, 4, 100), Augmentation(1, flip=True)),
    ],
)
def test_views_follow_the_kind_of_image(shape, expected):
    assert choose_augmentation(shape) == expected


def test_loaders_see_the_right_images(weights):
    setup = prepare("digits_cnn", "digits", NetworkConfig(weights), DataConfig(calibration_images=50), seed=3)
    drawn = calibration_indices(len(DIGITS.train), 50, 3)
    normalization = default_normalization("digits_cnn")
    images = torch.cat([x for x, _ in setup.calibration])
    assert torch.equal(images, normalization(DIGITS.train.batch(drawn)[0]))
    assert torch.equal(setup.example_inputs, images[:2])
    assert torch.equal(torch.cat([y for _, y in setup.test]), DIGITS.test.batch(np.arange(len(DIGITS.test)))[1])
    assert setup.training.images == len(DIGITS.train)
    assert not torch.equal(next(iter(setup.training))[0], next(iter(setup.calibration))[0])
    assert not setup.model.training


def test_the_recorded_facts_are_json_and_tell_weights_apart(weights, tmp_path):
    facts = prepare("digits_cnn", "digits", NetworkConfig(weights), DataConfig(calibration_images=8)).asked
    assert json.loads(json.dumps(facts)) == facts
    other = tmp_path / "other.safetensors"
    model = load_model("digits_cnn", num_classes=10, image_shape=(1, 8, 8))
    save_file(model.state_dict(), other)
    again = prepare("digits_cnn", "digits", NetworkConfig(other), DataConfig(calibration_images=8)).asked
    assert again["weights_fingerprint"] != facts["weights_fingerprint"]


def test_a_recipe_does_not_import_the_users_code_unasked():
    recipe = Recipe(model="no_such_module:factory", image_shape=(1, 8, 8))
    with pytest.raises(InputError, match="--model no_such_module:factory"):
        fresh_network(recipe)
    with pytest.raises(InputError, match="No module named"):
        fresh_network(recipe, "no_such_module:factory")


def test_a_recipe_checks_the_images():
    recipe = Recipe(model="digits_cnn", image_shape=(1, 9, 9))
    with pytest.raises(InputError, match="the network takes"):
        split_loader(recipe, "digits", "test")


def test_a_network_without_data_is_built_for_the_stated_shape():
    network, example = network_and_example("resnet20", input_shape=(1, 12, 12), num_classes=7)
    assert example.shape == (2, 1, 12, 12)
    assert network(example).shape == (2, 7)
    assert network_and_example("resnet20", image_size=24)[1].shape == (2, 3, 24, 24)
    with pytest.raises(InputError, match="did you mean resnet20"):
        network_and_example("resnet21")
