"""Constants for removed units, folded into the layers that read them: no other weight changes, and nothing is added.

A unit that is replaced by a constant c at every place adds the same number to every output of a layer that reads it, so
the constant goes into that layer's bias: b' = b + sum_k W[:, f, k] c. Where batch normalisation follows, the running
mean takes it with the other sign. Constants after Li & Janson (NeurIPS 2024); folding is named in arXiv 2602.24266. The
formula and its limits are ours [I]:

* away from padded borders the result is the network under do(removed := c), exactly;
* at a border padded with zeros the kernel reaches beyond the image, where do() leaves zeros and the bias still adds c:
  an output whose taps K lie outside is off by sum_{k in K} W[:, f, k] c;
* a layer with neither a bias nor a batch norm behind it has nowhere to put a constant, nor has an operation that is
  no convolution or linear layer: there the removed channels stay zero (see `unfolded`).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx

from whyprune.effects.outcomes import Outcome, judged
from whyprune.errors import InputError
from whyprune.interventions.optimal import Constants
from whyprune.interventions.values import Intervention, checked
from whyprune.repair.refit import no_worse
from whyprune.structure.copies import duplicate
from whyprune.structure.entry import entered
from whyprune.structure.network import Network, Reader
from whyprune.structure.operations import CONVOLUTIONS, bind, name_of, where
from whyprune.structure.replay import Replay
from whyprune.structure.state import State
from whyprune.structure.units import Unit


def repair_constants(
    state: State,
    data: Iterable[Any],
    *,
    outcome: Outcome | str | None = None,
    intervention: str = "mean",
    progress: bool = False,
) -> State:
    """Replaces every removed unit by its best constant, inside the biases of the layers that read it.

    Args:
        state: the network as cut, its other weights as in the original; its module is not changed.
        data: batches; labels only if the outcome needs them.
        outcome: what must not get worse, and what `optimal` and `closed-form` constants are best for.
        intervention: which constants: `mean`, `optimal` or `closed-form`; each unit's is found with all others there.
        progress: show a progress bar.

    Returns:
        The state with a repaired copy, or an unchanged copy if the outcome on `data` would have become worse.

    Raises:
        InputError: there is no data, or the intervention has no constants.
    """
    state = State.of(state)
    network = state.network
    batches = list(entered(data, network))
    if not batches:
        raise InputError("there is no data to find constants with: give a few hundred unlabelled images")
    constants = fitted_constants(
        network, batches, intervention=intervention, outcome=outcome, units=state.removed, progress=progress
    )
    return no_worse(state, fold_constants(state, constants), batches, outcome)


def fitted_constants(
    network: Network,
    data: Iterable[Any],
    *,
    intervention: str = "mean",
    outcome: Outcome | str | None = None,
    units: Sequence[Unit] | None = None,
    progress: bool = False,
) -> Constants:
    """The constants of an intervention, for every channel of every tensor that is read.

    Raises:
        InputError: the intervention has no constants.
    """
    if checked(intervention) not in ("mean", "optimal", "closed-form"):
        raise InputError(f"intervention {intervention!r} has no constants: choose from mean, optimal, closed-form")
    state, asked = judged(network, outcome)
    batches, replay = list(entered(data, network)), Replay(state.network)
    measured = asked.fit(torch.cat([replay.logits(b) for b in batches]))
    value = Intervention(checked(intervention)).fit(replay, batches, measured, units, progress=progress)
    if value.value != "mean":
        return value.constants
    return Constants({node: moments.mean.float() for node, moments in value.moments.items()}, value.forward_passes)


def fold_constants(state: State, constants: Constants | Mapping[str, float]) -> State:
    """The state with a module in which every layer adds what it would read of the removed units, were they constant.

    Away from padded borders it gives what the original gives under do(units := constants), if its other weights are the
    original's; this module's docstring says what happens at borders and in layers without a bias.

    Args:
        state: the network as cut; its module is not changed.
        constants: per tensor that is read, as found on the original; or unit name -> one constant for all its readers,
            units that are not named being zero.

    Raises:
        InputError: a unit is unknown.
    """
    network, chosen = state.network, state.removed
    gone = {unit.label for unit in chosen}
    replay = Replay(network)
    folded = duplicate(state.model)
    tensors = {**dict(folded.named_parameters()), **dict(folded.named_buffers())}
    names = network.graph.state_names
    with torch.no_grad():
        for reader in replay.readers(chosen):
            place = _place(replay, reader)
            if place is None:
                continue
            target, sign = place
            shift = _shift(replay, reader, _read(network, reader, gone, constants))
            keep = torch.from_numpy(~np.isin(network.written[reader.node], list(gone)))
            tensor = tensors[names[target.name]]
            tensor.add_(sign * shift[keep].to(tensor))
    return state.with_model(folded)


def unfolded(network: Network, units: Iterable[Unit | str]) -> tuple[str, ...]:
    """Where removed units are read by something that has no place for a constant: there they stay zero."""
    replay = Replay(network)
    return tuple(where(r.node) for r in replay.readers(network.select(units)) if _place(replay, r) is None)


def _place(replay: Replay, reader: Reader) -> tuple[fx.Node, float] | None:
    """The parameter or buffer that takes a constant, and with which sign; None where there is none."""
    node, network = reader.node, replay.network
    names = network.graph.state_names
    if name_of(node) not in (*CONVOLUTIONS, "linear") or node not in network.written:
        return None
    if bind(node)["weight"].name not in names:
        return None
    norm = replay.producers.get(node)
    found = bind(node)["bias"] if norm is None else bind(norm)["running_mean"]
    if found is None or found.name not in names or len(found.users) != 1:
        return None
    return found, 1.0 if norm is None else -1.0


def _read(network: Network, reader: Reader, gone: set[int], constants: Constants | Mapping[str, float]) -> Tensor:
    """The constant in every channel that the original's reader sees: (channels,), 0 where the unit stays."""
    labels = reader.labels.tolist()
    if isinstance(constants, Constants):
        known = constants.at[reader.data]
        if len(known) != len(labels):
            raise InputError(f"{len(known)} constants for {len(labels)} channels: find them on the original network")
    else:
        unknown = sorted(constants.keys() - network.by_name.keys())
        if unknown:
            raise InputError(f"no unit named {unknown[0]!r}: see network.units for the names")
        by_label = {network.by_name[name].label: value for name, value in constants.items()}
        known = torch.tensor([by_label.get(label, 0.0) for label in labels])
    return known * torch.tensor([float(label in gone) for label in labels])


def _shift(replay: Replay, reader: Reader, constant: Tensor) -> Tensor:
    """What the constants add to every output channel, in front of a normalisation, (O,)."""
    bound = bind(reader.node)
    weight = replay.bound(bound["weight"])
    constant = constant.to(weight)
    if name_of(reader.node) == "linear":
        return weight @ constant
    taps = weight.flatten(2).sum(dim=2, keepdim=True)
    return F.conv1d(constant[None, :, None], taps, groups=int(bound["groups"])).flatten()
