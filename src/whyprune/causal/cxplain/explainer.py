"""The explanation model: an ensemble of small networks from what is seen of an image to the effects of all units on it.

Three heads on two hidden layers [P: softmax over shares and KL loss; I: the other two heads]:
* share: w = |d| / sum |d| over units, loss KL(w || softmax);
* scale: log s, s = sum |d|, squared error; brought back by a factor that makes sums right on average (Duan's smearing);
* sign: the probability that an effect is negative, cross-entropy weighted by the share.
An effect is predicted as share x scale x (1 - 2 p(negative)). The heads start at the training images' averages, so a
model that learns nothing gives every image the same effects. The members differ in initial weights and in the bootstrap
sample of images; all are trained side by side.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]
SMALLEST = 1e-7
FLOOR = 1e-3
BOUND = 5.0


@dataclass(frozen=True)
class Training:
    """How the ensemble is trained; the defaults are the paper's, but for the learning rate of its examples.

    Attributes:
        models: members of the ensemble.
        hidden: width of the two hidden layers.
        rate: of Adam.
        batch: images per step.
        epochs: at most.
        patience: epochs without a better loss on the validation images, then a member is done.
        validation: share of the images that only decide when to stop.
        decay: weight decay.
    """

    models: int = 10
    hidden: int = 64
    rate: float = 1e-3
    batch: int = 64
    epochs: int = 100
    patience: int = 12
    validation: float = 0.1
    decay: float = 1e-2


@dataclass(frozen=True)
class Ensemble:
    """A trained ensemble.

    Attributes:
        parameters: weights of all members; the first dimension is the member.
        shift: subtracted from features, (features,).
        spread: features are divided by it, (features,).
        smearing: factor on every member's scale, (models,).
        negative: whether any effect was negative in training; otherwise none is predicted to be.
    """

    parameters: dict[str, Tensor]
    shift: Tensor
    spread: Tensor
    smearing: Tensor
    negative: bool

    def predict(self, features: Floats) -> Floats:
        """Effects (models, images, units) for features (images, features)."""
        with torch.no_grad():
            x = _scaled(torch.from_numpy(features).float(), self.shift, self.spread)
            share, scale, sign = _heads(self.parameters, x.expand(len(self.smearing), -1, -1))
            found = share.softmax(dim=-1) * (scale.exp() * self.smearing[:, None]).unsqueeze(-1)
            if self.negative:
                found = found * (1 - 2 * sign.sigmoid())
        effects: Floats = found.double().numpy()
        return effects


@dataclass(frozen=True)
class _Targets:
    shares: Tensor
    scale: Tensor
    negative: Tensor

    def __getitem__(self, index: Tensor) -> "_Targets":
        return _Targets(self.shares[index], self.scale[index], self.negative[index])


def train(
    features: Floats, effects: Floats, options: Training, seed: int, step: Callable[[], None] = lambda: None
) -> Ensemble:
    """Trains the ensemble on images that were intervened on.

    Args:
        features: (images, features).
        effects: (images, units), individual effects.
        options: how.
        seed: of initial weights, bootstrap samples and batches.
        step: called after every epoch.
    """
    generator = torch.Generator().manual_seed(seed)
    x, targets = torch.from_numpy(features).float(), _targets(torch.from_numpy(effects))
    shift, spread = x.mean(dim=0), x.std(dim=0)
    spread = torch.where(spread > SMALLEST, spread, torch.ones_like(spread))
    x = _scaled(x, shift, spread)
    order = torch.randperm(len(x), generator=generator)
    kept_back = max(1, round(options.validation * len(x)))
    stop, learn = order[:kept_back], order[kept_back:]
    drawn = learn[torch.randint(len(learn), (options.models, len(learn)), generator=generator)]
    start = _initial(x.shape[1], targets[learn], options, generator)
    parameters = _fitted(start, x, targets, (drawn, stop), options, generator, step)
    return Ensemble(
        parameters=parameters,
        shift=shift,
        spread=spread,
        smearing=_smearing(parameters, x, targets, drawn),
        negative=bool((effects < 0).any()),
    )


def _scaled(x: Tensor, shift: Tensor, spread: Tensor) -> Tensor:
    return ((x - shift) / spread).clamp(-BOUND, BOUND)


def _targets(effects: Tensor) -> _Targets:
    """An image on which nothing has an effect has equal shares of a thousandth of the mean scale."""
    size = effects.abs()
    total = size.sum(dim=1)
    scale = total.clamp_min(max(FLOOR * float(total.mean()), torch.finfo(torch.float32).tiny))
    clipped = (size / scale[:, None]).clamp_min(SMALLEST)
    return _Targets(
        (clipped / clipped.sum(dim=1, keepdim=True)).float(), scale.log().float(), (effects < 0).to(torch.float32)
    )


def _initial(features: int, targets: _Targets, options: Training, generator: torch.Generator) -> dict[str, Tensor]:
    """Random hidden layers; heads without weights, at the averages."""
    count, hidden, units = options.models, options.hidden, targets.shares.shape[1]

    def random(fan_in: int) -> Tensor:
        drawn: Tensor = torch.randn(count, fan_in, hidden, generator=generator)
        return drawn.mul((2 / fan_in) ** 0.5)

    average = torch.cat(
        [
            targets.shares.mean(dim=0).log(),
            targets.scale.mean()[None],
            torch.logit(targets.negative.mean(dim=0), eps=0.5 / len(targets.scale)),
        ]
    )
    return {
        "first": random(features),
        "first_bias": torch.zeros(count, 1, hidden),
        "second": random(hidden),
        "second_bias": torch.zeros(count, 1, hidden),
        "heads": torch.zeros(count, hidden, 2 * units + 1),
        "heads_bias": average.expand(count, 1, -1).clone(),
    }


def _heads(p: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(logits of shares, log scale, logits of negative signs) for features (models, images, features)."""
    hidden = torch.relu(torch.baddbmm(p["first_bias"], x, p["first"]))
    hidden = torch.relu(torch.baddbmm(p["second_bias"], hidden, p["second"]))
    out = torch.baddbmm(p["heads_bias"], hidden, p["heads"])
    units = out.shape[-1] // 2
    return out[..., :units], out[..., units], out[..., units + 1 :]


def _loss(p: dict[str, Tensor], x: Tensor, t: _Targets) -> Tensor:
    """Mean loss of every member, (models,)."""
    share, scale, sign = _heads(p, x)
    divergence = (t.shares * (t.shares.log() - share.log_softmax(dim=-1))).sum(dim=-1)
    error = (scale - t.scale).square()
    signs = F.binary_cross_entropy_with_logits(sign, t.negative.expand_as(sign), reduction="none")
    loss: Tensor = (divergence + error + (t.shares * signs).sum(dim=-1)).mean(dim=-1)
    return loss


def _fitted(
    parameters: dict[str, Tensor],
    x: Tensor,
    targets: _Targets,
    parts: tuple[Tensor, Tensor],
    options: Training,
    generator: torch.Generator,
    step: Callable[[], None],
) -> dict[str, Tensor]:
    """Every member's weights where its loss on the validation images was least."""
    drawn, stop = parts
    check = x[stop].expand(options.models, -1, -1)
    best = {name: value.clone() for name, value in parameters.items()}
    least = _loss(best, check, targets[stop])
    waited = torch.zeros(options.models, dtype=torch.long)
    for value in parameters.values():
        value.requires_grad_()
    optimizer = torch.optim.AdamW(parameters.values(), options.rate, weight_decay=options.decay)
    for _ in range(options.epochs):
        order = torch.rand(drawn.shape, generator=generator).argsort(dim=1)
        for rows in torch.split(drawn.gather(1, order), options.batch, dim=1):
            optimizer.zero_grad()
            with torch.enable_grad():
                _loss(parameters, x[rows], targets[rows]).sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        with torch.no_grad():
            loss = _loss(parameters, check, targets[stop])
            better = loss < least
            for name, value in parameters.items():
                best[name] = torch.where(better.view(-1, 1, 1), value.detach(), best[name])
        least, waited = torch.where(better, loss, least), torch.where(better, torch.zeros_like(waited), waited + 1)
        step()
        if bool((waited >= options.patience).all()):
            break
    return best


def _smearing(parameters: dict[str, Tensor], x: Tensor, targets: _Targets, drawn: Tensor) -> Tensor:
    """Per member: the sum of true scales over that of its own, on images it has not learnt from."""
    unseen = torch.ones(len(drawn), len(x)).scatter_(1, drawn, 0.0)
    with torch.no_grad():
        scale = _heads(parameters, x.expand(len(drawn), -1, -1))[1].exp()
    true = targets.scale.exp().expand_as(scale)
    return (true * unseen).sum(dim=1) / (scale * unseen).sum(dim=1)
