"""Parameters that no traced operation reads: heads of the training mode, and code that the example inputs do not run.

What only training runs is captured in training mode as well, and its labels travel like all others. What nothing runs
is judged by its shapes: a module with a sibling that runs (another expert of a mixture) is fed as that one is; any
other is cut along with the only channels of a width that it takes, or all channels that could feed it are kept. What
nothing that goes feeds stays as it is, even if its outputs would meet channels that go.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from whyprune.data.batches import Batch
from whyprune.structure.axes import Extent
from whyprune.structure.capture import Graph, capture_training, module_path
from whyprune.structure.copies import duplicate
from whyprune.structure.labels import Labellings, LabelSpace, distinct
from whyprune.structure.operations import sizes
from whyprune.structure.rules import Context, propagate

Atoms = Mapping[str, Mapping[int, Tensor]]
NOT_RUN = "the example inputs do not run it"
ALONG, KEPT = "cut along", "what could feed it is kept"
SOURCE = "as it is: nothing that goes feeds it"


def unread(model: nn.Module, graphs: Iterable[Graph]) -> tuple[str, ...]:
    """Parameters, and statistics of norms, that no operation of any of these graphs reads."""
    read = {g.state_names[n.name] for g in graphs for n in g.nodes if n.name in g.state_names and n.users}
    norms = {
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._NormBase)
        for name in ("running_mean", "running_var")
    }
    held = [n for n, p in model.named_parameters() if p.dim()] + [n for n, _ in model.named_buffers() if n in norms]
    return tuple(name for name in held if name not in read)


def unread_buffers(model: nn.Module, graph: Graph) -> bool:
    """Whether there are buffers of numbers that no operation of a graph reads: training may keep statistics in them."""
    read = {graph.state_names[n.name] for n in graph.nodes if n.name in graph.state_names and n.users}
    return any(b.dim() and b.is_floating_point() and name not in read for name, b in model.named_buffers())


def follow_training(
    model: nn.Module, example: Batch, graph: Graph, ctx: Context, labellings: Mapping[str, Labellings]
) -> Graph | None:
    """Lets labels travel through what the model computes in training mode as well; None where that is not known."""
    training = capture_training(duplicate(model).train(), example)
    if training is None:
        return None
    nodes = {n.name: n for n in graph.nodes}
    inputs = [ctx.labellings(nodes[name]) if name in nodes else () for name in graph.inputs]
    space, before = ctx.space, len(ctx.space.pins)
    also = propagate(training, space, labellings, dict(model.named_buffers()), ctx.heads, inputs)
    ctx.rectangles += also.rectangles
    ctx.meetings += also.meetings
    known = {root for pin in space.pins[:before] for root in distinct(space.roots(pin.labels))}
    fresh = [pin for pin in space.pins[before:] if not known.issuperset(distinct(space.roots(pin.labels)))]
    space.pins[before:] = [replace(pin, reason=f"{pin.reason} (in training mode)") for pin in fresh]
    return training


@dataclass(frozen=True)
class Unrun:
    """Judges what nothing runs by what does.

    Attributes:
        model: the model.
        graph: what it computes on the example inputs.
        space: the labels, after all operations.
        state: the atoms of every axis of every parameter and buffer.
        extents: of every tensor, along which dimensions channels lie.
    """

    model: nn.Module
    graph: Graph
    space: LabelSpace
    state: Atoms
    extents: Mapping[str, Extent]

    def settle(self, names: Sequence[str]) -> tuple[str, ...]:
        """Ties or keeps what could feed these parameters; what was done, in words."""
        paths = self._whole(names)
        alone = [name for name in names if not any(name.startswith(f"{path}.") for path in paths)]
        said = [f"{path} ({self._module(path, names)})" for path in paths]
        return (*said, *(f"{name} ({self._parameter(name)})" for name in alone))

    def _whole(self, names: Sequence[str]) -> list[str]:
        """The largest modules of which nothing is read."""
        found: list[str] = []
        for path, module in self.model.named_modules():
            own = [f"{path}.{n}" for n, p in module.named_parameters() if p.dim()]
            inside = any(path.startswith(f"{other}.") for other in found)
            if path and own and not inside and set(names).issuperset(own):
                found.append(path)
        return found

    def _module(self, path: str, names: Sequence[str]) -> str:
        siblings = self._siblings(path, names)
        if siblings:
            return self._like(path, siblings)
        given, gives = self._outer_widths(path)
        if not given:
            return self._kept(path, {len(atoms) for _, _, atoms in self._axes(path)})
        if not any(self._may_go(labels) for width in given for labels in self._vectors(width, "")):
            return SOURCE
        said = [self._fed_by(path, width) for width in sorted(given | gives)]
        return next((words for words in (KEPT, ALONG) if words in said), SOURCE)

    def _fed_by(self, path: str, width: int) -> str:
        """Ties all axes of a width to the only channels of that width; keeps these channels where there are several."""
        near = self._vectors(width, "")
        if len(near) == 1:
            for _, _, atoms in self._axes(path):
                if len(atoms) == width:
                    self.space.unite(atoms, near[0])
            return ALONG
        for labels in near:
            self._keep(labels, path)
        return KEPT if near else SOURCE

    def _siblings(self, path: str, names: Sequence[str]) -> list[str]:
        """Modules beside a module, of its class and shapes, that run."""
        home, own = path.rpartition(".")[0], self.model.get_submodule(path)
        parent = self.model.get_submodule(home)
        start = f"{home}." if home else ""
        others = [(f"{start}{name}", child) for name, child in parent.named_children()]
        read = [(p, m) for p, m in others if not any(n.startswith(f"{p}.") for n in names)]
        return [p for p, m in read if type(m) is type(own) and _shapes(m) == _shapes(own)]

    def _like(self, path: str, siblings: Sequence[str]) -> str:
        """Ties the channels that come from outside or go there to those of the siblings, if these agree."""
        members, outside, fed, parted = self._members(), dict[int, list[Tensor]](), False, False
        ties: list[tuple[Tensor, Tensor]] = []
        for name, axis, atoms in self._axes(path):
            rest = name.removeprefix(path)
            theirs = [(s, self.space.roots(self.state[f"{s}{rest}"][axis])) for s in siblings]
            shared = [
                roots
                for s, roots in theirs
                if any(not m.startswith(f"{s}.") for root in distinct(roots) for m in members.get(root, ()))
            ]
            if shared:
                outside.setdefault(len(atoms), []).extend(shared)
                parted = parted or any(not torch.equal(roots, shared[0]) for roots in shared)
                fed = fed or (self._reads(name, axis) and any(map(self._may_go, shared)))
                ties.append((atoms, self.state[f"{siblings[0]}{rest}"][axis]))
        if not fed:
            return SOURCE
        for own, other in ties:
            self.space.unite(own, other)
        said = f"cut like {siblings[0]}"
        for vectors in outside.values():
            several = any(not torch.equal(v, vectors[0]) for v in vectors)
            if several and (parted or len(siblings) == 1):  # one after the other, or beside each other: not known
                said = KEPT
                for roots in vectors:
                    self._keep(roots, path)
        return said

    def _reads(self, name: str, axis: int) -> bool:
        """Whether an axis of a parameter is that of what its layer gets, as far as its class tells."""
        path, _, _ = name.rpartition(".")
        module = self.model.get_submodule(path)
        if isinstance(module, nn.Embedding):
            return False
        rank = max([p.dim() for p in module.parameters(recurse=False)], default=1)
        written = 1 if isinstance(module, nn.modules.conv._ConvTransposeNd) else 0
        return rank == 1 or (len(self.state[name]) > 1 and axis != written)

    def _may_go(self, labels: Tensor) -> bool:
        """Whether any of these channels is not kept yet."""
        pinned = {root for pin in self.space.pins for root in distinct(self.space.roots(pin.labels))}
        return not pinned.issuperset(distinct(self.space.roots(labels)))

    def _outer_widths(self, path: str) -> tuple[set[int], set[int]]:
        """The widths of what a module gets and of what it gives, where it runs on one tensor: found by trial."""
        module = duplicate(self.model.get_submodule(path))
        held = {len(atoms) for _, _, atoms in self._axes(path)}
        kind = next((p for p in module.parameters()), torch.empty(0))
        given, gives = set[int](), set[int]()
        for width in sorted(held):
            for shape in ((2, width), (2, 3, width), (2, width, 8), (2, width, 8, 8), (2, width, 4, 4, 4)):
                try:
                    with torch.no_grad():
                        found = module(torch.zeros(shape, dtype=kind.dtype, device=kind.device))
                except Exception:  # noqa: BLE001 - whatever it raises, it does not take this
                    continue
                if isinstance(found, Tensor):
                    given.add(width)
                    gives |= {size for size in found.shape[1:] if size in held}
        return given, gives

    def _parameter(self, name: str) -> str:
        """Ties a parameter to the only channels of its width in the module that holds it; else keeps all of them."""
        owner = name.rpartition(".")[0]
        said = []
        for atoms in self.state[name].values():
            near = self._vectors(len(atoms), owner)
            if len(near) == 1:
                self.space.unite(atoms, near[0])
                said.append(ALONG)
            else:
                said.append(self._kept(name, {len(atoms)}))
        return said[0] if said else "without channels"

    def _vectors(self, width: int, owner: str) -> list[Tensor]:
        """All different channels of a width, in what a module computes; none where only one index is there."""
        found: dict[bytes, Tensor] = {}
        for node in self.graph.nodes:
            path = module_path(node)
            if node.op == "placeholder" or (owner and path != owner and not path.startswith(f"{owner}.")):
                continue
            for _, labels in self.extents.get(node.name, ()):
                if len(labels) == width:
                    found[labels.tobytes()] = torch.from_numpy(labels)
        return list(found.values())

    def _kept(self, path: str, widths: Iterable[int]) -> str:
        """Keeps all channels whose number, or that of whose values in one sample, is one of these."""
        kept = 0
        for node in self.graph.nodes:
            extent = () if node.op == "placeholder" else self.extents.get(node.name, ())
            values = torch.Size(sizes(node)[1:]).numel() if extent else 0
            for _, labels in extent:
                if len(labels) in widths or values in widths:
                    kept += 1
                    self._keep(torch.from_numpy(labels), path)
        return KEPT if kept else SOURCE

    def _keep(self, labels: Tensor, path: str) -> None:
        self.space.pin(labels, path, f"they may feed {path}, and {NOT_RUN}")

    def _axes(self, path: str) -> Iterator[tuple[str, int, Tensor]]:
        for name, axes in self.state.items():
            if name.startswith(f"{path}."):
                for axis, atoms in axes.items():
                    yield name, axis, atoms

    def _members(self) -> dict[int, set[str]]:
        """Class -> the parameters and buffers on which it lies."""
        found: dict[int, set[str]] = {}
        for name, axes in self.state.items():
            for atoms in axes.values():
                for root in distinct(self.space.roots(atoms)):
                    found.setdefault(root, set()).add(name)
        return found


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(t.shape) for name, t in (*module.named_parameters(), *module.named_buffers())}
