"""`group-lasso`: whole units become zero together.

The group lasso (Yuan and Lin, JRSS B 2006) over a network's filters and channels, as in structured sparsity learning
(Wen et al., NeurIPS 2016) [P]. A group here is everything that goes with a unit: the filter that writes it, its
batch-norm scale and shift, and the weights of all layers that read it [I].
"""

from torch import Tensor, nn

from whyprune.recovery.coupled import CoupledWeights
from whyprune.recovery.penalty import Penalty, penalty
from whyprune.structure.network import Network


@penalty(
    "group-lasso",
    summary="the sum over units of the Euclidean norm of all coupled weights, times the root of their number",
    paper="Yuan and Lin, JRSS B 2006; Wen et al., NeurIPS 2016",
)
def group_lasso(model: nn.Module, network: Network) -> Penalty:
    """See the module."""
    coupled = CoupledWeights(model, network)
    roots = coupled.sizes.sqrt()

    def total() -> Tensor:
        return (roots * coupled.norms()).sum()

    return total
