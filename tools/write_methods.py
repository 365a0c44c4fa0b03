"""Writes the tables of docs/methods.md from what methods say of themselves, and puts sample files into the docs.

    python tools/write_methods.py           writes the pages
    python tools/write_methods.py --check   fails if one is not up to date

A table goes between `<!-- facts:NAME -->` and `<!-- /facts -->`, a file between `<!-- file:PATH -->` and
`<!-- /file -->`.
"""

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from whyprune.allocation import ALLOCATORS
from whyprune.allocation.fitness import EPOCHS, FITNESS
from whyprune.methods import METHODS, Method, causal_method, method_named
from whyprune.methods.schedule import ABOUT, ROUNDS, STEP
from whyprune.recovery import PENALTIES
from whyprune.recovery.penalty import NamedPenalty
from whyprune.repair.registry import REPAIRS
from whyprune.scoring.contract import ALL_INTERVENTIONS
from whyprune.scoring.registry import SCORERS

ROOT = Path(__file__).parent.parent
PAGES = ("docs/methods.md", "docs/your-own-method.md")
LABELS = {"no": "no", "outcome": "no¹", "yes": "yes"}
NEEDS = {
    "order": "any effects or scores",
    "curves": "response curves",
    "evaluator": "images to measure plans on",
    "natural_widths": "a scorer that finds widths",
}
NUMBERS = {"one-shot": "", "geometric": "STEP"}
DEFAULTS = {"STEP": f"; STEP is {STEP:g} by default", "ROUNDS": f"; ROUNDS is {ROUNDS} by default", "": ""}
NOTHING = "–"
EXTRAS = {"": "", "causal": "²", "search": "³"}
"""Footnotes of the page."""


def methods() -> str:
    """Methods that are more than a scorer in one shot."""
    head = ("method", "what it is", "scorer", "allocation", "schedule", "images", "labels", "gradients", "training")
    rows = []
    for name in METHODS.places:
        method = METHODS(name)
        facts = method.facts()
        own = (facts["scorer"], facts["allocation"], facts["schedule"])
        needs = (_yes(facts["images"]), LABELS[facts["labels"]], _yes(facts["gradients"]), _yes(facts["training"]))
        asked = f" under `{method.intervention}`" if method.intervention else ""
        scorer, allocation, schedule = (f"`{part}`" for part in own)
        mark = "".join(EXTRAS[extra] for extra in facts["extra"].split(","))
        row = (
            f"`{name}`{mark}",
            facts["summary"],
            scorer + asked,
            allocation,
            schedule,
            *needs,
            facts["cost"],
            facts["guarantee"],
        )
        rows.append((*row, facts["paper"] or NOTHING))
    return _table((*head, "cost of judging", "guarantee", "source"), rows)


def scorers() -> str:
    """Who judges units."""
    head = ("scorer", "what it is", "estimand", "images", "labels", "gradients", "cost", "guarantee", "source")
    rows = []
    for name in SCORERS.places:
        facts = SCORERS(name).facts
        mark = EXTRAS[facts.extra]
        needs = (_yes(facts.images), LABELS[facts.labels], _yes(facts.gradients))
        about = (facts.cost, facts.guarantee, facts.paper or NOTHING)
        rows.append((f"`{name}`{mark}", facts.summary, facts.estimand, *needs, *about))
    return _table(head, rows)


def variants() -> str:
    """What `--causal` takes in whose place."""
    rows = []
    for name in dict.fromkeys((*METHODS.places, *SCORERS.places)):
        if variant := method_named(name).variant:
            facts = causal_method(name).facts()
            rows.append((f"`{name}`", f"`{variant}`", facts["summary"], facts["cost"], facts["guarantee"]))
    return _table(("method", "with `--causal`", "what it does instead", "cost", "guarantee"), rows)


def questions() -> str:
    """What each scorer can be asked for."""
    rows = []
    for name in SCORERS.places:
        facts = SCORERS(name).facts
        honoured = tuple(sorted(facts.interventions, key=ALL_INTERVENTIONS.index))
        values = "all" if honoured == ALL_INTERVENTIONS else ", ".join(f"`{v}`" for v in honoured) or NOTHING
        default = f"`{facts.interventions[0]}`" if facts.interventions else NOTHING
        able = (_yes(facts.individual), _yes(facts.rated), _yes("block" in facts.kinds))
        rows.append((f"`{name}`", facts.kind, values, default, *able))
    return _table(("scorer", "kind", "interventions", "default", "per image", "rate", "blocks"), rows)


def symmetries() -> str:
    """What each scorer does with scaled weights, copies, and units in another order."""
    rows = []
    for name in SCORERS.places:
        facts = SCORERS(name).facts
        order = "drawn by place" if facts.drawn else "the same numbers"
        rows.append((f"`{name}`", facts.scaling or NOTHING, facts.duplicates or NOTHING, order))
    return _table(("scorer", "scaling", "copies", "units in another order"), rows)


def allocations() -> str:
    """How the budget is spent."""
    rows = []
    for name in ALLOCATORS.places:
        facts = ALLOCATORS(name).facts
        about = (facts.summary, facts.guarantee, facts.cost or NOTHING, facts.paper or NOTHING)
        named = f"`{name}`{EXTRAS[facts.extra]}"
        rows.append((named, NEEDS[facts.needs], " and ".join(f"{kind}s" for kind in facts.kinds), *about))
    return _table(("allocation", "needs", "decides", "what it does", "guarantee", "cost", "source"), rows)


def fitness() -> str:
    """What searches minimise."""
    rows = []
    for name, facts in FITNESS.items():
        text = f"`{name}[:EPOCHS]`" if facts.training else f"`{name}`"
        cost = facts.cost.replace("EPOCHS", str(EPOCHS))
        rows.append((text, facts.summary, LABELS[facts.labels], _yes(facts.training), cost, facts.paper or NOTHING))
    return _table(("fitness", "what a plan is judged by", "labels", "training", "cost of a plan", "source"), rows)


def schedules() -> str:
    """In how many rounds."""
    rows = []
    for kind, (said, source) in ABOUT.items():
        number = NUMBERS.get(kind, "ROUNDS")
        form = f"{kind}[:{number}]" if number else kind
        rows.append((f"`{form}`", said + DEFAULTS[number], source or NOTHING))
    return _table(("schedule", "what it does", "source"), rows)


def repairs() -> str:
    """How the rest is repaired."""
    usual = Method.__dataclass_fields__["repair"].default
    rows = [
        (
            f"`{name}`" + (" (default)" if name == usual else ""),
            one.summary,
            one.gradients,
            _yes(one.between_rounds),
            one.guarantee,
            one.paper or NOTHING,
        )
        for name, one in REPAIRS.items()
    ]
    return _table(("repair", "what it does", "gradients", "refit between rounds", "guarantee", "source"), rows)


def penalties() -> str:
    """What a training can add to its loss."""
    rows = []
    for name in PENALTIES.places:
        penalty = PENALTIES(name)
        assert isinstance(penalty, NamedPenalty)
        rows.append((f"`{name}`", penalty.facts.summary, penalty.facts.paper or NOTHING))
    return _table(("penalty", "what it adds to the loss", "source"), rows)


TABLES = {
    "methods": methods,
    "scorers": scorers,
    "variants": variants,
    "questions": questions,
    "symmetries": symmetries,
    "allocations": allocations,
    "fitness": fitness,
    "schedules": schedules,
    "repairs": repairs,
    "penalties": penalties,
}


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    first, *rest = (f"| {' | '.join(cells)} |" for cells in (head, *rows))
    return "\n".join((first, "|" + "---|" * len(head), *rest))


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _code(path: str) -> str:
    return f"```python\n{(ROOT / path).read_text().rstrip()}\n```"


def written(text: str) -> str:
    """A page with every table and file between its markers.

    Raises:
        KeyError: a marker names no table.
        FileNotFoundError: a marker names no file.
    """
    for kind, content in (("facts", lambda name: TABLES[name]()), ("file", _code)):
        pattern = re.compile(rf"(<!-- {kind}:(\S+) -->\n).*?(<!-- /{kind} -->)", re.DOTALL)
        text = pattern.sub(lambda match, content=content: f"{match[1]}\n{content(match[2])}\n\n{match[3]}", text)
    return text


def main(arguments: Sequence[str]) -> int:
    """Writes the pages, or says which are not up to date."""
    stale = []
    for page in PAGES:
        path = ROOT / page
        text = path.read_text()
        if written(text) != text:
            stale.append(page)
            if "--check" not in arguments:
                path.write_text(written(text))
    if stale and "--check" in arguments:
        sys.stderr.write(f"not up to date: {', '.join(stale)}; run python tools/write_methods.py\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
