"""Where the responsible units of one layer look: CexCNN's saliency map.

map = ReLU(mean over units of responsibility x activation), brought to the image's size [P: Debbi, ECML PKDD 2021, for
the last convolution; its code uses weights 0 and 1]. [I] Any group; responsibilities by joint interventions.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, fx

from whyprune.causal.responsibility.prediction import explain_prediction
from whyprune.errors import InputError
from whyprune.structure.batch_place import FIRST
from whyprune.structure.entry import entered
from whyprune.structure.network import Network
from whyprune.structure.replay import Replay
from whyprune.structure.state import State


def saliency(
    start: Network | State, image: Any, group: str, *, responsibility: Mapping[str, float] | None = None
) -> NDArray[np.float64]:
    """Activations of a group's units on one image, weighted with their responsibility.

    Args:
        start: a traced model of images, or a state of it.
        image: a batch of one, as the model takes it.
        group: the group's name; of a residual stream its last value is taken.
        responsibility: of units by name; units that it lacks count 0. Default: for the network's prediction on this
            image, all units of the network being judged.

    Returns:
        (H, W) of the image, at least 0; all 0 where no unit of the group is responsible.

    Raises:
        InputError: not one image, no such group, or one without places.
    """
    state = State.of(start)
    network, replay = state.network, Replay.of(state)
    batch = next(iter(entered([image], network, "the image")))
    if len(batch) != 1:
        raise InputError(f"a batch of {len(batch)} images: give one, as a batch of one")
    units = [u for u in network.group(group).units if u.label not in replay.gone]
    images = [t for t in batch.tensors() if t.dim() == 4]
    node, channels = _last_map(network, {u.label for u in units}, group)
    labels = [label for label in channels if label not in replay.gone]
    if not images:
        raise InputError("a saliency map is as large as the image, and the batch has none (1, C, H, W)")
    if responsibility is None:
        causes = explain_prediction(state, batch).causes
        responsibility = {c.unit: c.responsibility for c in causes}
    weights = {u.label: float(responsibility.get(u.name, 0.0)) for u in units}
    size = network.graph.batch_size
    values = replay.run(batch if size is None else batch[torch.zeros(size, dtype=torch.long)], keep={node})
    maps: Tensor = values[node][:1]
    weight = torch.tensor([weights.get(label, 0.0) for label in labels], dtype=maps.dtype)
    heat = (maps * weight.view(1, -1, 1, 1)).sum(dim=1, keepdim=True).div(len(units)).relu()
    height, width = images[0].shape[-2:]
    upsampled = F.interpolate(heat, size=(height, width), mode="bilinear", align_corners=False)
    found: NDArray[np.float64] = upsampled[0, 0].double().numpy()
    return found


def _last_map(network: Network, wanted: set[int], group: str) -> tuple[fx.Node, list[int]]:
    """The last tensor (B, C, H, W) in which every unit of the group has a channel, and the label of each channel."""
    for node in reversed(network.graph.operations):
        value = node.meta.get("val")
        if not isinstance(value, Tensor) or value.dim() != 4:
            continue
        for dim, labels in network.extents.get(node, ()):
            if dim == 1 and wanted <= set(labels.tolist()) and network.places.found(node) == FIRST:
                return node, labels.tolist()
    raise InputError(f"the channels of group {group!r} have no places: choose a group of a convolution")
