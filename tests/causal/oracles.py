"""Interventions done by hand: hooks that give the readers of a unit another value."""

import numpy as np
import torch

from structure.removal_property import output
from whyprune.data.outputs import logits_of


def logits(model, batch):
    return logits_of(output(model, batch))


def channel_of(x, features, value):
    """A copy of `x` (images first, channels second) in which the channels `features` hold `value`."""
    changed = x.clone()
    changed[:, features] = value
    return changed


def mean_value(x, features, calibration):
    places = calibration[:, features].transpose(0, 1).flatten(1)
    return places.mean(dim=1).view(1, -1, *[1] * (x.dim() - 2)).expand_as(x[:, features])


def resampled_value(x, features, calibration):
    return x[:, features].roll(1, 0)


def carried_value(x, features, calibration):
    """Plain least squares from all other channels, with an intercept."""

    def design(t):
        rows = t.movedim(1, -1).flatten(0, -2).double().numpy()
        return np.c_[np.delete(rows, features, axis=1), np.ones(len(rows))], rows[:, features]

    coefficients = np.linalg.lstsq(*design(calibration), rcond=None)[0]
    predicted = torch.from_numpy(design(x)[0] @ coefficients).float()
    return predicted.view(*x.movedim(1, -1).shape[:-1], len(features)).movedim(-1, 1)


def hooked(model, readers, units, value, batch, calibration=None):
    """The logits when each of `readers` sees other values of `units`.

    `readers` says how many features of a unit each module reads. Values come from an undisturbed run on
    `calibration`, by default the batch itself.
    """
    modules = {name: model.get_submodule(name) for name in readers}
    plain: dict[str, torch.Tensor] = {}

    def keep(name):
        return lambda module, args: plain.__setitem__(name, args[0])

    def replace(name):
        width = readers[name]
        features = [f for unit in units for f in range(unit * width, (unit + 1) * width)]
        return lambda module, args: channel_of(args[0], features, value(args[0], features, plain[name]))

    for hook in (keep, replace):
        handles = [module.register_forward_pre_hook(hook(name)) for name, module in modules.items()]
        result = logits(model, batch if calibration is None or hook is replace else calibration)
        for handle in handles:
            handle.remove()
    return result
