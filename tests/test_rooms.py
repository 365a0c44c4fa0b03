"""The rooms of the package: few loose modules, no circles, every public name documented."""

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path

import networkx as nx
import pytest

import whyprune

ROOT = Path(whyprune.__file__).parent
MOST_LOOSE = 10


def modules():
    return {
        ".".join(("whyprune", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in ROOT.rglob("*.py")
    }


def imported(path):
    """Names of the project's modules that a file imports, at its top or inside functions, but for type checkers."""
    found = set()
    tree = ast.parse(path.read_text())
    for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "whyprune":
            inner = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            found.update(name if name in known else node.module for name in inner.values())
        elif isinstance(node, ast.Import):
            found.update(a.name for a in node.names if a.name.split(".")[0] == "whyprune")
    return found & known


known = set(modules())


def graph(of):
    made = nx.DiGraph()
    for name, path in modules().items():
        for other in imported(path):
            if of(name) != of(other) and "whyprune" not in (of(name), of(other)):
                made.add_edge(of(name), of(other))
    return made


def room(name):
    return ".".join(name.split(".")[:2])


@pytest.mark.parametrize("of", [lambda name: name, room], ids=["modules", "rooms"])
def test_imports_go_one_way(of):
    found = graph(of)
    assert len(found) > 20
    assert list(nx.simple_cycles(found)) == []


def test_scoring_knows_no_scorer_and_structure_no_method():
    found = graph(room)
    lower = {
        "structure": {"scoring", "causal", "criteria", "allocation", "methods", "pipeline"},
        "scoring": {"causal", "criteria", "allocation", "methods", "pipeline"},
        "repair": {"causal", "criteria", "allocation", "methods", "pipeline"},
        "allocation": {"causal", "criteria", "scoring", "methods", "pipeline"},
    }
    for name, above in lower.items():
        assert nx.descendants(found, f"whyprune.{name}").isdisjoint(f"whyprune.{other}" for other in above)


def test_few_modules_are_loose():
    assert len(list(ROOT.glob("*.py"))) <= MOST_LOOSE


@pytest.mark.parametrize("name", [n for n in whyprune.__all__ if not n.startswith("_")])
def test_every_public_name_says_what_it_is(name):
    thing = getattr(whyprune, name)
    assert inspect.getdoc(thing)
    if inspect.isfunction(thing):
        doc = inspect.getdoc(thing)
        takes = [p for p in inspect.signature(thing).parameters.values() if p.name not in ("facts", "options", "parts")]
        assert "Args:" in doc or len(takes) <= 2, "parameters are not described"
        assert all(f"{p.name}:" in doc for p in takes) or "Args:" not in doc


def test_every_module_says_what_it_is():
    for info in pkgutil.walk_packages([str(ROOT)], "whyprune."):
        path = modules()[info.name]
        assert ast.get_docstring(ast.parse(path.read_text())), info.name


def test_every_public_name_is_in_the_reference():
    reference = (ROOT.parents[1] / "docs" / "api.md").read_text()
    missing = [name for name in whyprune.__all__ if f"whyprune.{name}" not in reference]
    assert missing == []


def test_the_package_is_imported_without_the_heavy_libraries():
    """Those are for extras, or for what is asked for by name."""
    import subprocess
    import sys

    heavy = ("dowhy", "causallearn", "lightning_fabric", "onnx")
    code = f"import sys, whyprune; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
    assert importlib.import_module("whyprune.scoring.registry").SCORERS
