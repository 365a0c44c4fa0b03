"""Methods by name; every scorer is a one-shot method of its own name."""

from collections.abc import Iterator
from dataclasses import replace

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
        "causal-feature-clusters": "whyprune.methods.feature_clusters:causal_feature_clusters",
        "causal-acp": "whyprune.methods.causal_acp:causal_acp",
        "causal-afpruner": "whyprune.methods.causal_afpruner:causal_afpruner",
        "precrop": "whyprune.methods.precrop:precrop",
        "precrop-gp": "whyprune.methods.precrop:precrop_gp",
        "fsabp": "whyprune.methods.fsabp:fsabp",
        "causal-fsabp": "whyprune.methods.fsabp:causal_fsabp",
        "halp": "whyprune.methods.halp:halp",
        "preconfig": "whyprune.methods.precrop:preconfig",
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
        raise InputError(f"method={method!r:.60} is no method: wrap a scorer of your own, Method('mine', scorer=...)")
    if method in METHODS:
        return METHODS(method)
    if method in SCORERS:
        return Method(name=method, scorer=method)
    raise InputError(f"no method named {method!r}: choose from {', '.join(method_names())}")


def causal_method(method: str | Method) -> Method:
    """The causal variant of a method: the one it names, or the method with the variant of its scorer.

    A method that is a causal variant, or whose scorer is one, stays as it is.

    Raises:
        InputError: it has none.
    """
    chosen = method_named(method)
    if chosen.causal:
        return method_named(chosen.causal)
    if chosen.variant:
        return replace(chosen.with_parts(scorer=chosen.scorer_facts.causal), name=chosen.variant)
    having = {name: method_named(name).variant for name in method_names()}
    if chosen.name in having.values() or chosen.scorer_name in _variants_of_scorers().values():
        return chosen
    raise _without_variant("method", chosen.name, having)


def causal_scorer(name: str) -> str:
    """The name of a scorer's causal variant; a causal variant stays as it is.

    Raises:
        InputError: it has none, or there is no such scorer.
    """
    having = _variants_of_scorers()
    if name in having.values():
        return name
    if not SCORERS(name) or not having[name]:
        raise _without_variant("scorer", name, having)
    return having[name]


def _variants_of_scorers() -> dict[str, str]:
    """Scorer -> its causal variant, empty where there is none."""
    return {name: Method(name=name, scorer=name).scorer_facts.causal for name in SCORERS}


def _without_variant(kind: str, name: str, having: dict[str, str]) -> InputError:
    able = ", ".join(name for name, variant in having.items() if variant)
    return InputError(f"{kind} {name!r} has no causal variant: leave causal out, or choose from {able}")


def method_names() -> Iterator[str]:
    """The names of all methods, compositions first."""
    yield from METHODS
    yield from (name for name in SCORERS if name not in METHODS)
