"""Rows, refits and writing back for every kind of layer, against PyTorch's own operations and least squares by hand."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from structure.networks import randomised
from whyprune.repair import repair
from whyprune.repair.rows import MAX_BYTES, Layout, layout, sample_places
from whyprune.repair.writeback import Refitted, write
from whyprune.structure.operations import name_of
from whyprune.structure.remove import remove
from whyprune.structure.replay import Replay
from whyprune.structure.state import State
from whyprune.structure.trace import trace

CONVOLVE = (F.conv1d, F.conv2d, F.conv3d)
TRANSPOSE = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


@st.composite
def convolutions(draw, transposed):
    """(options of a convolution, its layout, data, weight) with 4 channels in and a multiple of the groups out."""
    dims = draw(st.integers(1, 3))

    def each(least, most):
        return tuple(draw(st.lists(st.integers(least, most), min_size=dims, max_size=dims)))

    kernel, stride, padding, dilation = each(1, 3), each(1, 3), each(0, 2), each(1, 2)
    groups = draw(st.sampled_from([1, 2, 4]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    size = each(3, 5)
    data = torch.randn(2, 4, *size, generator=generator, dtype=torch.float64)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    beyond = ()
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    if transposed:
        beyond = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
        options["output_padding"] = beyond
        sides = zip(size, stride, padding, reach, beyond, strict=True)
        assume(all((n - 1) * s - 2 * p + r + b >= 1 for n, s, p, r, b in sides))
        weight = torch.randn(4, 6 // 2, *kernel, generator=generator, dtype=torch.float64)
    else:
        assume(all(n + 2 * p >= r for n, p, r in zip(size, padding, reach, strict=True)))
        weight = torch.randn(2 * groups, 4 // groups, *kernel, generator=generator, dtype=torch.float64)
    return options, Layout(kernel, stride, padding, dilation, beyond, groups, transposed), data, weight


def assert_rows_times_weights_are_the_output(options, how, data, weight, run):
    out = run(data, weight, None, **options)
    assert how.sizes(data) == tuple(out.shape[2:])
    total = out[0, 0].numel()
    places = torch.randperm(total, generator=torch.Generator().manual_seed(total))[: max(1, total // 2)].sort().values
    rows, matrix = how.split(how.features(data, places)), how.matrix(weight)
    torch.testing.assert_close(rows @ matrix.mT, how.split(how.values(out, places)))
    assert torch.equal(how.weight(how.filters(weight)), weight)


@settings(max_examples=60, deadline=None)
@given(case=convolutions(transposed=False))
def test_rows_times_weights_are_what_a_convolution_gives(case):
    options, how, data, weight = case
    assert_rows_times_weights_are_the_output(options, how, data, weight, CONVOLVE[data.dim() - 3])


@settings(max_examples=60, deadline=None)
@given(case=convolutions(transposed=True))
def test_rows_times_weights_are_what_a_transposed_convolution_gives(case):
    options, how, data, weight = case
    assert_rows_times_weights_are_the_output(options, how, data, weight, TRANSPOSE[data.dim() - 3])


@settings(max_examples=30, deadline=None)
@given(kernel=st.integers(1, 5), dilation=st.integers(1, 3), same=st.booleans(), seed=st.integers(0, 99))
def test_padding_in_words_is_what_pytorch_pads(kernel, dilation, same, seed):
    assume(same or dilation * (kernel - 1) < 12)
    torch.manual_seed(seed)
    conv = nn.Conv1d(3, 4, kernel, padding="same" if same else "valid", dilation=dilation, bias=False).double()
    model = nn.Sequential(conv, nn.Flatten()).eval()
    data = torch.randn(2, 3, 12).double()
    node = next(n for n in trace(model, data).graph.operations if name_of(n) == "conv1d")
    how = layout(node)
    out = conv(data).detach()
    places = torch.arange(out.shape[2])
    torch.testing.assert_close(how.features(data, places) @ conv.weight.detach().flatten(1).T, how.values(out, places))


@pytest.mark.parametrize("transposed", [False, True])
def test_a_layer_with_groups_is_refitted_group_by_group(transposed):
    """Ridge regression by hand on what the repaired network gives the layer, towards what the dense layer gave."""
    kind = nn.ConvTranspose1d if transposed else nn.Conv1d
    grouped = kind(8, 6, 3, padding=1, groups=2)
    model = randomised(
        nn.Sequential(nn.Conv1d(3, 8, 3), nn.GELU(), grouped, nn.GELU(), nn.Conv1d(6, 4, 1), nn.Flatten())
    )
    model = model.double()
    data = torch.randn(40, 3, 9, generator=torch.Generator().manual_seed(0)).cumsum(2).double()
    network = trace(model, data[:2])
    units = [unit for unit in network.units if unit.name.startswith("0:")][:2]
    pruned = remove(network, units)
    repaired = repair(State(network, pruned, units), [data]).model
    with torch.no_grad():
        seen, target = repaired[:2](data), model[:3](data)
    channels, outputs = seen.shape[1] // 2, 3
    assert channels < 4
    padded = F.pad(seen, (1, 1)).numpy()
    taps = (2, 1, 0) if transposed else (0, 1, 2)
    for group in range(2):
        own = padded[:, group * channels : (group + 1) * channels]
        x = np.stack([own[:, :, k : k + seen.shape[2]] for k in taps], axis=2)  # (images, channels, taps, places)
        x = x.transpose(0, 3, 1, 2).reshape(-1, channels * 3)
        t = target[:, group * outputs : (group + 1) * outputs].permute(0, 2, 1).reshape(-1, outputs).numpy()
        weight = pruned[2].weight.detach()
        start = weight[group * channels : (group + 1) * channels].transpose(0, 1) if transposed else None
        start = weight[group * outputs : (group + 1) * outputs] if start is None else start
        start = start.reshape(outputs, -1).numpy()
        centred = x - x.mean(axis=0)
        gram = centred.T @ centred
        strength = 1e-3 * gram.diagonal().mean()
        solved = np.linalg.solve(gram + strength * np.eye(len(gram)), centred.T @ t + strength * start.T)
        found = repaired[2].weight.detach()
        if transposed:
            found = found[group * channels : (group + 1) * channels].transpose(0, 1)
        else:
            found = found[group * outputs : (group + 1) * outputs]
        np.testing.assert_allclose(found.reshape(outputs, -1).numpy(), solved.T, rtol=1e-6, atol=1e-8)
        bias = repaired[2].bias.detach()[group * outputs : (group + 1) * outputs].numpy()
        np.testing.assert_allclose(bias, t.mean(axis=0) - x.mean(axis=0) @ solved, rtol=1e-6, atol=1e-8)


LAYERS = {
    "1d": (nn.Conv1d(4, 6, 3, bias=False), nn.BatchNorm1d(6)),
    "3d": (nn.Conv3d(4, 6, 3), nn.BatchNorm3d(6)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6)),
    "depthwise": (nn.Conv2d(4, 4, 3, groups=4, bias=False), nn.BatchNorm2d(4)),
    "same": (nn.Conv1d(4, 6, 4, padding="same"), nn.BatchNorm1d(6)),
    "transposed 1d": (nn.ConvTranspose1d(4, 6, 4, stride=2), nn.BatchNorm1d(6)),
    "transposed 2d": (nn.ConvTranspose2d(4, 6, 2, stride=2, bias=False), nn.BatchNorm2d(6)),
    "transposed with groups": (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), nn.BatchNorm2d(6)),
    "transposed 3d": (nn.ConvTranspose3d(4, 6, 2, stride=2), nn.BatchNorm3d(6)),
}


def images(layer, count):
    dims = layer.weight.dim() - 2
    return torch.randn(count, 4, *[6] * dims, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", LAYERS)
def test_batch_norm_is_folded_and_written_back_in_evaluation_and_in_training(name):
    layer, norm = copy.deepcopy(LAYERS[name])
    model = randomised(nn.Sequential(layer, norm))
    data = images(layer, 3000 // 4 ** (layer.weight.dim() - 2))
    network = trace(model, data[:2])
    replay = Replay(network)
    ((node, _),) = replay.producers.items()
    weight, bias = replay.parameters_of(node)
    with torch.no_grad():
        torch.testing.assert_close(replay.apply(node, data, weight, bias), model(data), rtol=1e-4, atol=1e-4)
    new = torch.randn(weight.shape, generator=torch.Generator().manual_seed(2))
    new_bias = torch.linspace(-1, 1, len(bias))
    made = replay.apply(node, data, new, None).transpose(0, 1).flatten(1)
    module = copy.deepcopy(model)
    write(replay, module, Refitted(node, new, new_bias, made.mean(dim=1), made.var(dim=1)))
    with torch.no_grad():
        expected = replay.apply(node, data, new, new_bias)
        torch.testing.assert_close(module.eval()(data), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(module.train()(data), expected, rtol=3e-3, atol=3e-3)
    how = layout(node)
    norms = [how.filters(m[0].weight).flatten(1).norm(dim=1) for m in (module, model)]
    torch.testing.assert_close(*norms)


@pytest.mark.parametrize("every", [False, True])
def test_rows_keep_to_the_memory_there_is(every):
    """Places of a volume: 64 x 64 x 64, of which only a few fit."""
    features, images, groups = 27 * 64, 100, 2
    places = sample_places(64**3, features, images, torch.Generator().manual_seed(0), groups=groups, every=every)
    assert 4 * features * groups * images * len(places) <= MAX_BYTES
    assert len(places) > 1
    assert int(places.max()) > 64**3 // 2
