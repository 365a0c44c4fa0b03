"""Why an operation with weights cannot be refitted, as far as the captured graph tells."""

from torch import fx

from whyprune.structure.operations import AFFINE, bind, name_of, shape_of

RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
PRODUCTS = ("matmul", "__matmul__", "linalg_matmul", "mm", "mv", "bmm", "addmm", "baddbmm", "einsum", "bilinear")
WEIGHT_NORM = "_weight_norm"
_PARTS = ("slice", "select", "split", "split_with_sizes", "chunk", "unbind", "getitem", "unsafe_chunk", "narrow")
_MOVED = ("t", "transpose", "permute", "numpy_T", "view", "reshape", "unsqueeze", "squeeze", "expand")


def obstacle(node: fx.Node) -> str | None:
    """Why an operation cannot be refitted, in words that go on from its name; None where it can."""
    name = name_of(node)
    if name in RECURRENT:
        return "recurrent layers are not refitted"
    if name in PRODUCTS:
        return f"a product written by hand ({name.strip('_')}) is not refitted"
    if name not in AFFINE:
        return "it is neither a convolution nor a linear layer"
    bound = bind(node)
    for key in ("weight", "bias"):
        for source in sources(bound[key]):
            if source.op != "placeholder":
                return f"its {key} is {_made(source)}"
            if len(source.users) != 1:
                return f"its {key} is used more than once"
        if bound[key] is not None and len(bound[key].users) != 1:
            return f"its {key} is used more than once"
    if name != "linear" and len(shape_of(node)) != len(shape_of(bound["weight"])):
        return "it runs on a tensor without a batch dimension"
    return None


def sources(given: fx.Node | None) -> tuple[fx.Node, ...]:
    """What a weight or bias is written into: itself, or the direction and length of weight normalisation."""
    if given is None:
        return ()
    return (given.args[0], given.args[1]) if name_of(given) == WEIGHT_NORM else (given,)  # type: ignore[return-value]


def _made(given: fx.Node) -> str:
    """How a tensor that is no parameter comes about."""
    if given.op != "call_function":
        return "no parameter"
    if name_of(given) in _PARTS:
        return "a part of a larger parameter"
    if name_of(given) in _MOVED:
        return "a parameter in another shape"
    return "computed from other tensors, as by spectral normalisation"
