"""The digits network learns on the spot, and the seed alone decides the result."""

import numpy as np
import torch

from whyprune.data import DataSource, Loader, TensorSplit, load_source
from whyprune.models import default_normalization, fingerprint, load_model, train_digits


def fresh():
    return load_model("digits_cnn", num_classes=10, image_shape=(1, 8, 8))


def few(images=128):
    source = load_source("digits")
    pixels, labels = source.train.batch(np.arange(images))
    return DataSource("few", TensorSplit("few", pixels, labels), source.test, source.class_names)


def test_it_learns_the_digits():
    source, model = load_source("digits"), fresh()
    reports = []
    train_digits(model, source, seed=0, progress=lambda *report: reports.append(report))
    assert not model.training
    with torch.no_grad():
        correct = sum(
            int((model(x).argmax(1) == y).sum())
            for x, y in Loader(source.test, default_normalization("digits_cnn"), 500)
        )
    assert correct / 500 > 0.97
    epochs, totals, losses = zip(*reports, strict=True)
    assert epochs == tuple(range(1, totals[0] + 1))
    assert losses[-1] < losses[0] / 10


def test_the_seed_alone_decides():
    threads = torch.get_num_threads()
    models = [fresh() for _ in range(3)]
    state = torch.random.get_rng_state()
    for model, seed in zip(models, (1, 1, 2), strict=True):
        train_digits(model, few(), seed)
    first, again, other = map(fingerprint, models)
    assert first == again != other
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.get_num_threads() == threads
