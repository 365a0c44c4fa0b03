"""Ctrl-C in a search keeps the plans that were measured, and --resume goes on."""

import pytest
from command_line import listing, record, refused, run

from whyprune.allocation.measured_errors import MeasuredErrors


@pytest.fixture
def searched(prune):
    return (*prune, "--method", "eagleeye", "--search-plans", "6", "--calibration-images", "128", "--out", "out")


def test_a_resumed_search_ends_like_an_uninterrupted_one(searched, here, monkeypatch):
    plain, plans = MeasuredErrors.measured, []

    def pressed(self, pruned):
        plans.append(pruned)
        if len(plans) == 3:
            raise KeyboardInterrupt
        return plain(self, pruned)

    monkeypatch.setattr(MeasuredErrors, "measured", pressed)
    stopped = run(*searched)
    assert stopped.code == 130
    said = stopped.err.splitlines()[-1]
    assert said.startswith("interrupted: the plans that were measured are kept in")
    assert "--resume" in said
    assert listing(here) == ["out.partial", "out.partial/search.json"]
    assert "--resume goes on with it" in refused(*searched)
    assert run(*searched, "--resume").code == 0
    assert len(plans) == 3 + 6 - 2
    assert listing(here)[0] == "out"
    assert not (here / "out.partial").exists()
    assert any("2 measured plans were taken" in note for note in record("out")["notes"])
    whole = (*searched[:-1], "whole")
    assert run(*whole).code == 0
    assert (here / "whole" / "plan.json").read_bytes() == (here / "out" / "plan.json").read_bytes()
    for folder in ("out", "whole"):  # what was taken counts as well
        assert any("The search measured 6 plans by their batch-norm" in note for note in record(folder)["notes"])


def test_where_there_is_nothing_to_resume_it_is_said(searched, here):
    fresh = run(*searched, "--resume")
    assert fresh.code == 0
    assert "nothing to resume, so it starts from the beginning" in " ".join((fresh.out + fresh.err).split())
    assert "nothing to resume" not in (again := run(*searched, "--overwrite")).out + again.err


def test_what_a_search_cannot_do_is_refused_before_any_work(searched, here):
    assert "choose from joint-effect, batch-norm" in refused(*searched, "--fitness", "speed")
    assert "needs 6 plans or more" in refused(*searched, "--method", "acp", "--search-plans", "3")
    assert "measures no plans" in refused(*searched, "--method", "taylor")
