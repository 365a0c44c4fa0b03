"""What a batch must be for a network that was traced on an example: read, matched, or refused in words."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from whyprune.data.batches import LABEL_KEYS, Batch, as_batch
from whyprune.errors import InputError


def expected_batch(raw: Any, example: Batch, what: str = "the data", notes: list[str] | None = None) -> Batch:
    """A batch as the network takes it: of the kinds, names, types and device of the example it was traced on.

    Entries of a dict that hold no tensors and that the example has not (texts, file names) are left out. Floats of
    another precision, and integers of another width that hold the same values, take the example's type.
    Inputs that are no tensors (flags, None) may be left out: they are the example's. Sizes may differ from the
    example's; `structure.entry` checks whether the network runs at them.

    Args:
        raw: as `as_batch` reads it.
        example: what the network was traced on.
        what: whose batch it is, for messages.
        notes: gets a sentence for every input that was converted, once.

    Raises:
        InputError: the batch does not fit; the message has what was expected, what came, and what to do.
    """
    if _is_only_input(raw, example):
        raw = (raw, next((raw[key] for key in LABEL_KEYS if key in raw and key not in example.args[0]), None))
        raw = ({key: raw[0][key] for key in example.args[0]}, raw[1])
    batch = as_batch(raw, max(len(example.args), 1))
    if not isinstance(raw, Batch) and isinstance(raw, Mapping):  # a network that takes its targets as an input
        taken = {key: raw[key] for key in LABEL_KEYS if key in raw and key in example.kwargs}
        batch = Batch(batch.args, {**batch.kwargs, **taken}, batch.labels)
    _check_swapped(batch, example, what)
    left_out = {k: v for k, v in example.kwargs.items() if k not in batch.kwargs and not _holds_tensors(v)}
    given = {**left_out, **batch.kwargs}
    if example.kwargs and (beside := [k for k in given if k not in example.kwargs and not _holds_tensors(given[k])]):
        given = {name: value for name, value in given.items() if name not in beside}
        _note(notes, f"The entries {', '.join(map(repr, beside))} of {what} hold no tensors: they are left out.")
    _check_form(batch, given, example, what)
    matched = _Matching(what, [] if notes is None else notes)
    args = tuple(matched(e, g, f"input {i + 1}") for i, (e, g) in enumerate(zip(example.args, batch.args, strict=True)))
    kwargs = {name: matched(value, given[name], repr(name)) for name, value in example.kwargs.items()}
    device = example.tensors()[0].device
    return Batch(args, kwargs, batch.labels if batch.labels is None else batch.labels.to(device))


def _is_only_input(raw: Any, example: Batch) -> bool:
    """Whether a dict is the one input of a network that takes a dict, as loaders give it: not in a tuple."""
    if isinstance(raw, Batch) or not isinstance(raw, Mapping) or example.kwargs or len(example.args) != 1:
        return False
    taken = example.args[0]
    return isinstance(taken, dict) and set(taken) == {key for key in raw if key in taken or key not in LABEL_KEYS}


def shown(tensor: Tensor, *, batch: bool = True) -> str:
    """A tensor's shape, its first dimension as B, and its type."""
    sizes = ("B", *tensor.shape[1:]) if batch and tensor.dim() else tuple(tensor.shape)
    inner = ", ".join(map(str, sizes)) + ("," if len(sizes) == 1 else "")
    return f"({inner}) {str(tensor.dtype).removeprefix('torch.')}"


def _form(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    if kwargs:
        return f"a dict with the keys {', '.join(map(repr, kwargs))}"
    if len(args) == 1:
        return "one tensor" if isinstance(args[0], Tensor) else f"one {type(args[0]).__name__}"
    return f"a tuple of {len(args)} inputs"


def _check_form(batch: Batch, given: Mapping[str, Any], example: Batch, what: str) -> None:
    """Refuses other numbers of inputs, and other names."""
    came, traced = _form(batch.args, batch.kwargs), _form(example.args, example.kwargs)
    if bool(batch.kwargs) and not example.kwargs:
        raise InputError(
            f"a batch of {what} is {came}, and the model was traced with {traced}: give example_inputs as a dict with "
            "the same keys, or batches as a tensor or (inputs, labels)"
        )
    if example.kwargs and not batch.kwargs and batch.args:
        raise InputError(
            f"a batch of {what} is {came}, and the model was traced with {traced}: give every batch as a dict with "
            "these keys (and 'labels'), or example_inputs as a tensor or a tuple"
        )
    if len(batch.args) != len(example.args):
        raise InputError(
            f"a batch of {what} has {len(batch.args)} positional inputs, and the model was traced with "
            f"{len(example.args)}: give batches as ({', '.join('inputs' for _ in example.args)}, labels)"
        )
    missing, strange = [k for k in example.kwargs if k not in given], [k for k in given if k not in example.kwargs]
    if missing or strange:
        wrong = [f"lacks {', '.join(map(repr, missing))}"] * bool(missing)
        wrong += [f"has {', '.join(map(repr, strange))} as well"] * bool(strange)
        raise InputError(
            f"a batch of {what} {' and '.join(wrong)}; the model was traced with {traced}: give the same keys in "
            "every batch and in example_inputs (labels go under 'labels')"
        )


def _check_swapped(batch: Batch, example: Batch, what: str) -> None:
    """Refuses (labels, inputs), which reads as inputs of another shape."""
    if len(example.args) != 1 or len(batch.args) != 1 or not isinstance(batch.labels, Tensor):
        return
    wanted, first = example.args[0], batch.args[0]
    if not (isinstance(wanted, Tensor) and isinstance(first, Tensor)) or first.dim() == wanted.dim():
        return
    if batch.labels.dim() == wanted.dim() and first.dim() < wanted.dim():
        raise InputError(
            f"a batch of {what} holds {shown(first)} first and {shown(batch.labels)} second, and the model was traced "
            f"with {shown(wanted)}: give (inputs, labels), in this order"
        )


def _holds_tensors(value: Any) -> bool:
    return any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(value))


def _note(notes: list[str] | None, sentence: str) -> None:
    if notes is not None and sentence not in notes:
        notes.append(sentence)


class _Matching:
    """Takes a value as the example has it, place by place."""

    def __init__(self, what: str, notes: list[str]) -> None:
        self._what, self._notes = what, notes

    def __call__(self, example: Any, given: Any, place: str) -> Any:
        """The given value, as the example's place takes it."""
        if isinstance(example, Tensor):
            return self._tensor(example, given, place)
        if isinstance(example, dict) and isinstance(given, Mapping):
            if set(example) != set(given):
                self._refuse(place, f"a dict with the keys {sorted(map(str, given))}", sorted(map(str, example)))
            return type(example)((key, self(value, given[key], f"{place}[{key!r}]")) for key, value in example.items())
        flat, fold = pytree.tree_flatten(example)
        if len(flat) == 1 and flat[0] is example:
            return self._constant(example, given, place)
        found, other = pytree.tree_flatten(given)
        if not (isinstance(example, list | tuple) and isinstance(given, list | tuple)):
            if fold != other:
                self._refuse(place, f"a {type(given).__name__}", f"a {type(example).__name__} of the same parts")
            return pytree.tree_unflatten([self(e, g, place) for e, g in zip(flat, found, strict=True)], fold)
        if len(example) != len(given):
            self._refuse(place, f"{len(given)} entries", len(example))
        parts = [self(e, g, f"{place}[{i}]") for i, (e, g) in enumerate(zip(example, given, strict=True))]
        return pytree.tree_unflatten(pytree.tree_leaves(parts), fold)

    def _tensor(self, example: Tensor, given: Any, place: str) -> Tensor:
        if not isinstance(given, Tensor):
            raise InputError(
                f"{place} of a batch of {self._what} is a {type(given).__name__}, and the model was traced with a "
                f"tensor {shown(example)}: give tensors (torch.as_tensor, ToTensor)"
            )
        if given.dim() != example.dim():
            how = "keep the batch dimension first: one sample is x[None]"
            if given.dim() > example.dim():
                how = "take away the dimensions that are too many"
            self._refuse(place, shown(given, batch=given.dim() >= example.dim()), shown(example), how)
        if example.is_floating_point() != given.is_floating_point() or example.is_complex() != given.is_complex():
            how = f"convert it to {str(example.dtype).removeprefix('torch.')}"
            if example.is_floating_point():
                how += " and normalise it as in training, such as (images.float() / 255 - mean) / std"
            self._refuse(place, shown(given), shown(example), how)
        cast = given.to(device=example.device, dtype=example.dtype)
        if cast.dtype == given.dtype:
            return cast
        if not given.is_floating_point() and not torch.equal(cast.to(given.dtype), given.to(cast.device)):
            self._refuse(place, f"{shown(given)} with values that do not fit", shown(example))
        if given.is_floating_point() and not bool(torch.isfinite(cast).all()):
            self._refuse(place, f"{shown(given)} with values beyond its range", shown(example), "scale the data")
        came, traced = (str(dtype).removeprefix("torch.") for dtype in (given.dtype, example.dtype))
        said = f"{place.capitalize()} of {self._what} is {came}: it is converted to {traced}, as the model was traced."
        _note(self._notes, said)
        return cast

    def _constant(self, example: Any, given: Any, place: str) -> Any:
        if isinstance(given, Tensor) or type(given) is not type(example) or given != example:
            what = shown(given) if isinstance(given, Tensor) else f"{given!r:.60}"
            self._refuse(place, what, f"{example!r:.60}", "the trace holds for that value only")
        return given

    def _refuse(self, place: str, came: Any, traced: Any, how: str = "give every batch in that form") -> None:
        raise InputError(f"{place} of a batch of {self._what} is {came}, and the model was traced with {traced}: {how}")
