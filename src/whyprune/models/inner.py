"""What people wrap around a network: data-parallel replicas and what `torch.compile` gives."""

from torch import nn


def inner(model: nn.Module) -> nn.Module:
    """The network inside all wrappers; a plain one as it is."""
    while True:
        parallel = isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel)
        found = getattr(model, "module" if parallel else "_orig_mod", None)
        if not isinstance(found, nn.Module):
            return model
        model = found
