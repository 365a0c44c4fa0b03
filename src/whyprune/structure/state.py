"""`State`: how far a network has been pruned: the trace, the module as it stands, and the units that module lacks."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from torch import nn

from whyprune.errors import InputError
from whyprune.structure.alike import cut_elsewhere
from whyprune.structure.blocks import lies_in
from whyprune.structure.network import Network
from whyprune.structure.units import Unit, removed_indices


@dataclass(frozen=True)
class State:
    """A network and a module that lacks exactly `removed`; every step of pruning takes one and gives one.

    Attributes:
        network: the traced original.
        model: the module as cut, and perhaps repaired or trained, so far; never changed in place.
        removed: the units it lacks, in the network's order.
        likeness: whether the module's channels are held against those of the original; what steps of pruning make needs
            no such check, and a reconstruction may make other channels than there were.

    Raises:
        InputError: a parameter of `model` has another size than the removal leaves, or the channels that it has left
            are recognisably others.
    """

    network: Network
    model: nn.Module
    removed: tuple[Unit, ...] = ()
    likeness: bool = field(default=True, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "removed", self.network.select(self.removed))
        self._check_shapes()
        if self.likeness and (elsewhere := cut_elsewhere(self.network, self.model, removed_indices(self.removed))):
            raise InputError(
                f"the model is not the network without these {len(self.removed)} units: most channels that {elsewhere} "
                "has left are those of other units; name the units it was cut by, or cut it with remove(state, units)"
            )

    @classmethod
    def of(cls, start: "Network | State") -> "State":
        """The state of a network of which nothing has been removed; a state as it is.

        Raises:
            InputError: it is neither.
        """
        if isinstance(start, State):
            return start
        if not isinstance(start, Network):
            raise InputError(f"{type(start).__name__} is no State and no traced Network: trace(model, example) first")
        return cls(start, start.model)

    @property
    def is_dense(self) -> bool:
        """Whether nothing is removed."""
        return not self.removed

    @property
    def dense(self) -> "State":
        """The original."""
        return State(self.network, self.network.model)

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """The units that are still there, in the network's order."""
        gone = frozenset(unit.label for unit in self.removed)
        return tuple(unit for unit in self.network.units if unit.label not in gone)

    def with_model(self, model: nn.Module) -> "State":
        """The same removal in another module of the same shape: a repaired one, a trained one."""
        return State(self.network, model, self.removed, likeness=False)

    def select(self, units: Iterable[Unit | str]) -> tuple[Unit, ...]:
        """Those of the units named or given that are still there, in the network's order.

        Raises:
            InputError: one is unknown.
        """
        names = self.network.names_of(units)
        return tuple(unit for unit in self.units if unit.name in names)

    def _check_shapes(self) -> None:
        """Refuses a module that cannot be the network without `removed`: its sizes are others."""
        blocks = tuple(block.name for block in self.network.bypassed(self.removed))
        expected = {name: list(shape) for name, shape in self.network.cost.shapes.items() if not lies_in(name, blocks)}
        for (name, axis), indices in removed_indices(self.removed).items():
            if name in expected:
                expected[name][axis] -= len(indices)
        for name, tensor in (*self.model.named_parameters(), *self.model.named_buffers()):
            if name in expected and list(tensor.shape) != expected[name]:
                raise InputError(
                    f"the model is not the network without these {len(self.removed)} units: {name} has the shape "
                    f"{tuple(tensor.shape)}, not {tuple(expected[name])}; cut it with remove(state, units)"
                )

    def __repr__(self) -> str:
        name = type(self.model).__name__
        return f"State({name}: {len(self.removed)} of {len(self.network.units)} units are removed)"
