"""Every kind of fitness against a second implementation, on which images it is measured, and what it refuses."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tiny
from whyprune import Budget, Method, Settings, prune
from whyprune.allocation.fitness import FITNESS
from whyprune.data.batches import Batch
from whyprune.data.calibration import calibrate
from whyprune.effects.joint import joint_effect
from whyprune.errors import InputError
from whyprune.pipeline import start
from whyprune.pipeline.evaluators import evaluator_of
from whyprune.recovery.randomness import Stream, generator
from whyprune.repair import repair
from whyprune.structure.remove import remove
from whyprune.structure.state import State
from whyprune.structure.trace import trace

pytestmark = pytest.mark.usefixtures("traced_once")
LABELLED = tiny.batches(0, 240)
SETTINGS = Settings(latency=False, refute=False, views=1, effect_images=32)
SEED = 4


@pytest.fixture(scope="module")
def state():
    return State.of(trace(tiny.trained(), tiny.digits()[0][:2]))


@pytest.fixture(scope="module")
def units(state):
    return [u.name for g in state.network.groups for u in g.units[: len(g.units) // 2]]


def searching(fitness, **parts):
    return Method("mine", "magnitude-l2", "particle-swarm", fitness=fitness, **parts)


def looked_at(evaluator):
    """The images that plans are measured on, and their labels."""
    return torch.cat([b.args[0] for b in evaluator.batches]), torch.cat([b.labels for b in evaluator.batches])


def error(model, images, labels):
    """By hand: wrong answers first, and the mean cross-entropy between 0 and 1 of a wrong answer."""
    with torch.no_grad():
        logits = model.eval()(images).double().numpy()
    top = logits.argmax(axis=1)
    surprise = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(top)), labels.numpy()]
    return (np.sum(top != labels.numpy()) + surprise.mean() / (1 + surprise.mean())) / len(top)


def pieces(batches, size):
    """All images in even pieces of about that size."""
    images, labels = (torch.cat(parts) for parts in zip(*((b.args[0], b.labels) for b in batches), strict=True))
    count = max(1, round(len(images) / size))
    return [
        Batch((x,), {}, y)
        for x, y in zip(*(t.tensor_split(edges(len(images), count)) for t in (images, labels)), strict=True)
    ]


def edges(images, count):
    return [round(k * images / count) for k in range(1, count)]


def averaged_norms(model, batches):
    """By hand: statistics of what each norm is given while all norms use those of the batch, averaged over batches."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    seen = {norm: [] for norm in norms}
    hooks = [norm.register_forward_pre_hook(lambda norm, x: seen[norm].append(x[0].detach())) for norm in norms]
    model.train()
    for norm in norms:
        norm.momentum = 0.0
    with torch.no_grad():
        for batch in batches:
            model(batch.args[0])
    for hook in hooks:
        hook.remove()
    for norm in norms:
        norm.running_mean.copy_(torch.stack([x.mean(dim=(0, 2, 3)) for x in seen[norm]]).mean(dim=0))
        norm.running_var.copy_(torch.stack([x.var(dim=(0, 2, 3)) for x in seen[norm]]).mean(dim=0))
    return model.eval()


def trained(model, batches, epochs):
    """By hand: SGD with momentum and decay, half a cosine from 0.01, batches of 32 in an order drawn anew per epoch."""
    random, listed = generator(Stream.VALIDATION, SEED), []
    for number in random.permutation(len(batches)):  # the order in which data without a validation part is listed
        listed.append(batches[number])
        random.permutation(len(batches[number]))
    batches = listed
    speeds = [torch.zeros_like(p) for p in model.parameters()]
    model.train()
    step, steps = 0, epochs * len(batches)
    for epoch in range(1, epochs + 1):
        order = generator(Stream.ORDER, SEED, epoch).permutation(np.arange(len(batches)))
        for number in order:
            batch = batches[number]
            loss = F.cross_entropy(model(batch.args[0]), batch.labels)
            slopes = torch.autograd.grad(loss, list(model.parameters()))
            rate = 0.01 * (1 + math.cos(math.pi * step / steps)) / 2
            with torch.no_grad():
                for p, slope, speed in zip(model.parameters(), slopes, speeds, strict=True):
                    speed.mul_(0.9).add_(slope + 1e-4 * p)
                    p.sub_(rate * speed)
            step += 1
    return model.eval()


@pytest.mark.parametrize("fitness", ["joint-effect", "batch-norm", "refit", "short-training:1", "short-training:2"])
def test_a_fitness_is_that_of_a_second_implementation(fitness, state, units):
    view = calibrate(LABELLED, 1, None, 0).view(1)
    evaluator = evaluator_of(searching(fitness), state, view, seed=SEED)
    found = evaluator(units)
    images, labels = looked_at(evaluator)
    cut = remove(state, units)
    if fitness == "joint-effect":
        expected = joint_effect(repair(cut, evaluator.fit, seed=SEED), evaluator.batches).mean
    elif fitness == "refit":
        expected = error(repair(cut, evaluator.fit, seed=SEED).model, images, labels)
    elif fitness == "batch-norm":
        expected = error(averaged_norms(cut.model, pieces(evaluator.fit, 128)), images, labels)
    else:
        model = trained(cut.model, pieces(evaluator.fit, 32), int(fitness[-1]))
        expected = error(model, images, labels)
    assert found == pytest.approx(expected, rel=1e-3)
    assert evaluator.forward_passes > 0
    as_cut = error(remove(state, units).model, images, labels)
    assert fitness == "joint-effect" or abs(found - as_cut) > 1e-3  # the mending matters here


@pytest.mark.parametrize("fitness", list(FITNESS))
@pytest.mark.parametrize("images", [48, 240, 1600])
def test_plans_are_measured_apart_from_what_mends_and_what_audits(fitness, images, state):
    numbers = torch.arange(float(images)).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    labels = torch.arange(images) % 10
    calibration = calibrate(list(zip(numbers.split(50), labels.split(50), strict=True)), 1, None, 0)
    evaluator = evaluator_of(searching(fitness), state, calibration.view(1))
    parts = (evaluator.batches, evaluator.fit, calibration.audit)
    measured_on, mended_on, audit = ({int(n) for b in part for n in b.args[0][:, 0, 0, 0]} for part in parts)
    assert measured_on.isdisjoint(mended_on)
    assert audit.isdisjoint(measured_on | mended_on)
    facts = FITNESS[fitness]
    assert len(measured_on) == min(facts.measured_on, (images - len(audit)) // 3)
    assert 0 < len(mended_on) <= facts.mended_on


@pytest.mark.parametrize("fitness", ["batch-norm", "short-training:1"])
def test_images_that_come_one_by_one_mend_as_well(fitness, state, units):
    """Statistics of one image are none: batches are made even first."""
    one_by_one = [(x[k : k + 1], y[k : k + 1]) for x, y in LABELLED for k in range(len(y))]
    found = [
        evaluator_of(searching(fitness), state, calibrate(data, 1, None, 0).view(1), seed=SEED)(units)
        for data in (LABELLED, one_by_one)
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_without_a_refit_of_the_method_a_joint_effect_is_that_of_the_network_as_cut(state, units):
    view = calibrate(LABELLED, 1, None, 0).view(1)
    evaluator = evaluator_of(searching("joint-effect", repair="none"), state, view)
    assert evaluator.fit == []
    assert evaluator(units) == pytest.approx(joint_effect(remove(state, units), evaluator.batches).mean, rel=1e-5)


# --- what is refused before any work


@pytest.fixture
def no_work(monkeypatch):
    """A trace would be work."""
    monkeypatch.setattr(start, "trace", lambda *_, **__: pytest.fail("the model was traced"))


def run(method, data=LABELLED, model=None, **settings):
    return prune(
        tiny.trained() if model is None else model,
        data,
        example_inputs=LABELLED[0][0][:2],
        budget=Budget(macs=0.6),
        method=method,
        settings=replace(SETTINGS, **settings),
        progress=False,
    )


@pytest.mark.parametrize("method", ["acp", "afpruner", "eagleeye"])
@pytest.mark.parametrize("form", ["tensors", "batches", "dicts"])
def test_images_without_labels_are_refused_with_the_way_out(method, form, no_work):
    plain = [x for x, _ in LABELLED]
    data = {"tensors": plain, "batches": [Batch((x,), {}) for x in plain], "dicts": [(x,) for x in plain]}[form]
    with pytest.raises(InputError, match=r"has no labels: give \(inputs, labels\).*--fitness joint-effect"):
        run(method, data)


def test_labels_that_stop_half_way_are_refused_before_the_search():
    half = [*LABELLED[:2], *(x for x, _ in LABELLED[2:])]
    with pytest.raises(InputError, match="has no labels"):
        run("eagleeye", half)


@pytest.mark.parametrize(
    ("labels", "said"),
    [(lambda y: y + 7, "the network has 10 classes"), (lambda y: y.float(), "one class number per row")],
)
def test_labels_that_are_no_classes_of_the_network_are_refused(labels, said):
    with pytest.raises(InputError, match=f"measures plans by.*{said}.*--fitness joint-effect"):
        run("eagleeye", [(x, labels(y)) for x, y in LABELLED])


def test_a_network_that_does_not_train_is_refused_by_a_fitness_that_trains():
    class Deaf(tiny.Tiny):
        def forward(self, x):
            if self.training:
                raise RuntimeError("only for use")
            return super().forward(x)

    model = Deaf()
    model.load_state_dict(tiny.trained().state_dict())
    with pytest.raises(InputError, match="does not run in training mode: only for use"):
        run("acp", model=model.eval())


def test_the_way_out_works_without_labels():
    found = run("acp", [x for x, _ in LABELLED], fitness="joint-effect", search_plans=6)
    assert found.measurements.asked["fitness"] == "joint-effect"
    assert found.measurements.pruned.macs <= 0.6 * found.measurements.dense.macs


def test_a_network_without_batch_norm_says_that_nothing_is_re_estimated():
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 10),
    ).eval()  # fmt: skip
    found = run("eagleeye", model=model, search_plans=2)
    assert any("No batch norm of this network" in note for note in found.measurements.notes)
