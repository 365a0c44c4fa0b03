"""ncnn's format (.param and .bin), written by pnnx for one image.

ncnn has no slices with steps. pnnx writes a layer for them all the same; ncnn refuses it in a printed line, goes on,
and crashes at the first call. So slices with steps are written as max pooling over windows of one pixel, which gives
the same values, and a file with any layer that ncnn does not know is refused.
"""

import subprocess
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor, fx, nn

from whyprune.data.batches import Batch
from whyprune.devices.artifacts.torch_export import program
from whyprune.errors import InputError, TraceError


def write(model: nn.Module, example: Batch, path: Path) -> None:
    """Writes both files, in single precision.

    Raises:
        InputError: more than one image.
        TraceError: ncnn cannot run the network.
    """
    if len(example) != 1:
        raise InputError(f"{len(example)} inputs per call for ncnn, which runs one at a time: give batch_size 1")
    tensors = tuple(t.detach().cpu() for t in example.tensors())
    module = _without_steps(program(model, example).module(check_guards=False))
    traced = path.with_suffix(".pt")
    torch.jit.save(
        torch.jit.trace(  # type: ignore[no-untyped-call]
            module, tensors, check_trace=False
        ),
        str(traced),
    )
    _convert(type(model).__name__, traced, tensors)
    for suffix in (".param", ".bin"):
        path.with_suffix(f".ncnn{suffix}").rename(path.with_suffix(suffix))
    _check(type(model).__name__, path)


def _without_steps(module: fx.GraphModule) -> fx.GraphModule:
    graph = module.graph
    for node in list(graph.nodes):
        if node.target is torch.ops.aten.slice.Tensor and len(node.args) == 5 and _is_every_nth(node):
            source, dim, _, _, step = node.args
            stride = [step if i == dim else 1 for i in (2, 3)]
            with graph.inserting_before(node):
                pooled = graph.call_function(torch.ops.aten.max_pool2d.default, (source, [1, 1], stride))
            pooled.meta = dict(node.meta)
            node.replace_all_uses_with(pooled)
            graph.erase_node(node)
    module.recompile()
    return module


def _is_every_nth(node: fx.Node) -> bool:
    """A slice of every nth row or column of an image, from the first to the last."""
    source, dim, start, end, step = node.args
    value = source.meta.get("val") if isinstance(source, fx.Node) else None
    return (
        isinstance(value, Tensor)
        and value.dim() == 4
        and value.is_floating_point()
        and dim in (2, 3)
        and isinstance(step, int)
        and step > 1
        and start in (0, None)
        and isinstance(end, int)
        and end >= value.shape[2 if dim == 2 else 3]
    )


def _convert(name: str, traced: Path, tensors: tuple[Tensor, ...]) -> None:
    kinds = {torch.float32: "f32", torch.int64: "i64", torch.int32: "i32"}
    if any(t.dtype not in kinds for t in tensors):
        raise TraceError(f"{name} cannot be written as ncnn: inputs are {[str(t.dtype) for t in tensors]}")
    shapes = ",".join(f"[{','.join(map(str, t.shape))}]{kinds[t.dtype]}" for t in tensors)
    command = [import_module("pnnx").EXEC_PATH, str(traced), f"inputshape={shapes}", "fp16=0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=traced.parent)
    if done.returncode != 0 or not traced.with_suffix(".ncnn.param").is_file():
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise TraceError(f"{name} cannot be written as ncnn: pnnx ends with status {done.returncode} {' '.join(last)}")


def _check(name: str, path: Path) -> None:
    """Every layer is one that ncnn can make; its own loader only prints a line for one that it cannot."""
    library = import_module("ncnn")
    lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()[2:]]
    unknown = sorted({words[0] for words in lines if words and library.layer_to_index(words[0]) < 0})
    if unknown:
        raise TraceError(f"{name} cannot be written as ncnn, which has no {', '.join(unknown)}: use another runtime")
