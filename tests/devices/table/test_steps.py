"""The steps of a made-up device are found from its table, and drawn."""

import pytest
import torch
from torch import nn

from devices.made_up_device import MadeUp
from whyprune.devices.table.plot import plot_curves
from whyprune.devices.table.rows import Row
from whyprune.devices.table.steps import LatencyCurve, step_of, tabulate
from whyprune.errors import InputError
from whyprune.structure.trace import trace


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture(scope="module")
def network():
    convolutions = [nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 48, 3)]
    model = nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 9))
    return trace(model.eval(), torch.randn(2, 3, 8, 8))


@pytest.mark.parametrize("step", [1, 8, 16, 32])
def test_the_step_of_the_device_is_found(network, step):
    table, curves, measured = tabulate(network, MadeUp(step=step, name=f"made-up-{step}"), multiple=2)
    assert measured.latency["dense"].p50_ms == pytest.approx(MadeUp(step=step).time_ms(network.model))
    assert step_of(curves) == max(step, 2)
    for curve in curves:
        last = curve.widths[-1]
        assert curve.efficient == tuple(w for w in curve.widths if w % step == 0 or w == last)
    assert all(table[curve.dense] == curve.ms[-1] for curve in curves)


def test_curves_know_their_side(network):
    _, curves, _ = tabulate(network, MadeUp(), multiple=16)
    assert {(c.dense.inputs, c.dense.outputs, c.side): c.widths for c in curves} == {
        (3, 64, "outputs"): (16, 32, 48, 64),
        (64, 48, "inputs"): (16, 32, 48, 64),
        (64, 48, "outputs"): (16, 32, 48),
        (48, 9, "inputs"): (16, 32, 48),
    }


def test_a_smooth_device_has_no_step():
    smooth = LatencyCurve(("a",), Row("conv", 7, 7), "inputs", tuple(range(1, 8)), tuple(0.1 * n for n in range(1, 8)))
    assert smooth.efficient == smooth.widths
    assert step_of([smooth]) == 1
    assert step_of([]) == 1


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_a_plot_is_a_picture(network, tmp_path, suffix):
    _, curves, _ = tabulate(network, MadeUp(), multiple=16)
    plot_curves(curves, "made-up (predicted)", tmp_path / f"p.{suffix}")
    head = (tmp_path / f"p.{suffix}").read_bytes()[:8]
    assert head.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[suffix])


def test_what_cannot_be_drawn_is_refused(network, tmp_path):
    with pytest.raises(InputError, match="nothing to plot"):
        plot_curves([], "made-up", tmp_path / "p.png")
    with pytest.raises(InputError, match=r"\.png, \.svg, \.pdf"):
        plot_curves([], "made-up", tmp_path / "p.gif")
