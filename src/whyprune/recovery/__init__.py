"""Fine-tunes the pruned network, with labels and, if asked, with the dense network as its teacher."""

from whyprune.recovery.config import Recovery
from whyprune.recovery.features import Twin, twins
from whyprune.recovery.run import RecoveryResult, recover
from whyprune.recovery.split import HoldsOut

__all__ = ["HoldsOut", "Recovery", "RecoveryResult", "Twin", "recover", "twins"]
