"""`whyprune methods` says what there is, and what each method says of itself."""

import json

import pytest
from command_line import refused, run

from whyprune.methods import method_named, method_names


@pytest.mark.parametrize("columns", ["80", "120"])
def test_all_methods_are_listed_by_their_whole_names(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    shown = run("methods")
    assert shown.code == 0
    lines = shown.out.splitlines()
    assert max(map(len, lines)) <= int(columns)
    first = [line.split()[0] for line in lines if line and not line.startswith(" ")]
    assert [word for word in first if word in set(method_names())] == list(method_names())
    assert ("allocation" in lines[0]) == (columns == "120")


@pytest.mark.parametrize("columns", ["80", "120"])
def test_the_list_says_of_each_what_it_costs_promises_and_where_it_is_from(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    shown = " ".join(run("methods").out.split())
    for name in method_names():
        facts = method_named(name).facts()
        about = f"Cost: {facts['cost']}. Guarantee: {facts['guarantee']}."
        about = f"Labels if the outcome needs them. {about}" if facts["labels"] == "outcome" else about
        about += f" Paper: {facts['paper']}." if facts["paper"] else ""
        about += f" Causal variant: {facts['causal']}." if facts.get("causal") else ""
        about += f" Extra: {facts['extra']}." if facts["extra"] else ""
        assert " ".join(about.split()) in shown


def test_the_list_says_what_each_needs():
    said = json.loads(run("methods", "--json").out)["methods"]
    assert [facts["name"] for facts in said] == list(method_names())
    lines = {line.split()[0]: line for line in run("methods").out.splitlines() if line and line[0] != " "}
    assert lines["gradient"].rstrip().endswith("images, gradients")
    assert lines["random"].rstrip().endswith("nothing")


@pytest.mark.parametrize("name", ["causal", "conditional", "magnitude-l2"])
def test_one_method_says_its_parts_and_facts(name):
    said = json.loads(run("methods", name, "--json").out)
    assert said == json.loads(json.dumps(method_named(name).facts()))
    assert {"scorer", "allocation", "schedule", "repair", "cost", "guarantee", "paper", "labels"} <= said.keys()
    shown = " ".join(run("methods", name).out.split())
    for part in ("scorer", "schedule", "repair", "cost", "guarantee"):
        assert f"{part} {said[part]}" in shown


def test_causal_is_rounds_of_curves():
    said = json.loads(run("methods", "causal", "--json").out)
    parts = {part: said[part] for part in ("scorer", "allocation", "schedule", "repair")}
    assert parts == {"scorer": "curves", "allocation": "curves", "schedule": "geometric:2", "repair": "refit"}


def test_a_method_says_which_its_causal_variant_is():
    assert "causal variant causal-taylor" in " ".join(run("methods", "taylor").out.split())
    assert "causal variant none" in " ".join(run("methods", "causal").out.split())
    assert json.loads(run("methods", "filter-similarity", "--json").out)["causal"] == "causal-filter-similarity"
    assert "taylor" in " ".join(run("methods").out.split()).rpartition("prune --causal")[2]


def test_a_causal_variant_says_whose_it_is():
    assert "causal variant it is that of acp" in " ".join(run("methods", "causal-acp").out.split())
    assert "causal variant it is that of taylor" in " ".join(run("methods", "causal-taylor").out.split())


def test_a_search_says_what_it_minimises_how_many_plans_it_measures_and_what_its_scorer_costs():
    shown = " ".join(run("methods", "causal-acp").out.split())
    facts = method_named("causal-acp").facts()
    assert f"fitness joint-effect plans {facts['search_plans']} at most" in shown
    assert method_named("causal-acp").scorer_facts.cost in shown
    assert "fitness" not in run("methods", "taylor").out


@pytest.mark.parametrize(("name", "rounds"), [("causal-fsabp", True), ("halp", True), ("acp", False)])
def test_what_is_paid_in_every_round_is_said(name, rounds):
    assert method_named(name).facts()["cost"].endswith("in every round") == rounds


@pytest.mark.parametrize("columns", [80, 120])
def test_what_a_method_does_has_room(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    head = run("methods").out.splitlines()[0]
    assert head.index("needs") - head.index("what") > columns // 3 - 4


def test_an_unknown_method_is_one_message(here):
    message = refused("methods", "magic")
    assert "no method named 'magic'" in message
    assert "causal" in message
