"""Methods by name; every scorer is a one-shot method of its own name."""

from collections.abc import Iterator

from whyprune.errors import InputError
from whyprune.methods.method import Method
from whyprune.named import Named
from whyprune.scoring.registry import SCORERS

METHODS: Named[Method] = Named(
    "method",
    {
        "causal": "whyprune.methods.causal:causal",
        "conditional": "whyprune.methods.conditional:conditional",
        "random-search": "whyprune.methods.random_search:method",
        "acp": "whyprune.methods.acp:acp",
        "afpruner": "whyprune.methods.afpruner:afpruner",
        "eagleeye": "whyprune.methods.eagleeye:eagleeye",
        "precrop": "whyprune.methods.precrop:precrop",
        "precrop-gp": "whyprune.methods.precrop:precrop_gp",
        "fsabp": "whyprune.methods.fsabp:fsabp",
        "halp": "whyprune.methods.halp:halp",
        "feature-clusters": "whyprune.methods.feature_clusters:feature_clusters",
    },
    "whyprune.methods",
)
"""Name -> method; other packages add theirs by the entry-point group `whyprune.methods`."""


def method_named(method: str | Method) -> Method:
    """The method of that name, one-shot for the name of a scorer; a method as it is.

    Raises:
        InputError: there is none.
    """
    if isinstance(method, Method):
        return method
    if not isinstance(method, str):
        raise InputError(f"method={method!r} is no method: wrap a scorer of your own, Method('mine', scorer=...)")
    if method in METHODS:
        return METHODS(method)
    if method in SCORERS:
        return Method(name=method, scorer=method)
    raise InputError(f"no method named {method!r}: choose from {', '.join(method_names())}")


def method_names() -> Iterator[str]:
    """The names of all methods, compositions first."""
    yield from METHODS
    yield from (name for name in SCORERS if name not in METHODS)
