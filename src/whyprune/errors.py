"""Every mistake a user can make ends in one of these: what was wrong, with which value, and the way out."""


class WhypruneError(Exception):
    """Base of all errors raised on purpose; the command line prints its message and exits with status 2."""


class InputError(WhypruneError, ValueError):
    """An argument, a configuration or a batch of data that cannot be used."""


class DivergedError(InputError):
    """A training whose loss, or whose network, no longer gives finite numbers."""


class TraceError(WhypruneError):
    """A model whose computation could not be captured; says where in the user's code, and why."""


class BudgetError(WhypruneError, ValueError):
    """A budget that no plan can meet; carries the smallest reachable value in its message."""


class FormatError(WhypruneError):
    """A file that is missing, truncated, hostile, or that does not fit the model it is meant for."""


class VerificationError(WhypruneError):
    """The pruned network and the masked original disagree: the pruned network must not be used."""


class MissingDependencyError(WhypruneError, ImportError):
    """An optional library is needed for what was asked; names the extra that brings it."""


class DeviceError(WhypruneError):
    """A device that cannot be reached, or that could not run what it was given."""
