"""The pages that are written from facts and samples are up to date, and the code on them runs."""

import importlib.util
import re
import sys
import types
from pathlib import Path

import pytest

import tiny

ROOT = Path(__file__).parents[2]


def tool():
    spec = importlib.util.spec_from_file_location("write_methods", ROOT / "tools" / "write_methods.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_up_to_date():
    assert tool().main(["--check"]) == 0, "run python tools/write_methods.py"


def test_a_changed_page_is_noticed(tmp_path, monkeypatch, capsys):
    module = tool()
    for page in module.PAGES:
        (tmp_path / page).parent.mkdir(exist_ok=True)
        (tmp_path / page).write_text("<!-- facts:schedules -->\nstale\n<!-- /facts -->\n")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    assert module.main(["--check"]) == 1
    assert "docs/methods.md" in capsys.readouterr().err
    assert module.main([]) == 0
    assert "`cubic[:ROUNDS]`" in (tmp_path / "docs/methods.md").read_text()
    assert module.main(["--check"]) == 0


@pytest.mark.parametrize("kind", ["METHODS", "SCORERS", "ALLOCATORS", "REPAIRS", "PENALTIES"])
def test_everything_by_name_is_on_the_page(kind):
    module, page = tool(), (ROOT / "docs" / "methods.md").read_text()
    known = getattr(module, kind)
    assert all(f"| `{name}`" in page for name in getattr(known, "places", known))


def test_the_walk_through_runs(monkeypatch):
    page = (ROOT / "docs" / "your-own-method.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) > 6
    here = types.ModuleType("walk_through")
    batches = tiny.batches(0, 240)
    vars(here).update(model=tiny.trained(), batches=batches, example=batches[0][0][:2])
    monkeypatch.setitem(sys.modules, here.__name__, here)
    for block in blocks:
        exec(block, vars(here))
    assert here.result.plan.method == "activation-rounds"
    assert here.result.measurements.asked["schedule"] == "cubic:3"
    assert here.result.measurements.pruned.macs <= 0.7 * here.result.measurements.dense.macs


def test_a_search_that_measures_plans_says_that_an_outcome_may_need_labels():
    facts = tool().METHODS("random-search").facts()
    assert (facts["images"], facts["labels"]) == (True, "outcome")
    assert tool().Method("plain", scorer="magnitude-l2", allocation="global").facts()["labels"] == "no"
