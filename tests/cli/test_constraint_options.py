"""Constraints reach the run from flags and from a file, are recorded, and mistakes in them are said in one line."""

import json
from pathlib import Path

import pytest
from command_line import record, refused, run

SHARED = {"round_to": 8, "max_share": {"block1.conv1": 0.5}, "min_width": 16}


def widths(folder):
    return {group["name"]: group["kept"] for group in record(folder)["groups"]}


def dense(folder):
    return {group["name"]: group["width"] for group in record(folder)["groups"]}


def test_flags_reach_the_result(prune, here):
    flags = ("--round-to", "8", "--max-share", "block1.conv1=0.5", "--min-width", "16", "--budget", "macs=0.7")
    assert run(*prune, *flags, "--out", "a").code == 0
    assert record("a")["asked"]["constraints"] == SHARED
    kept, whole = widths("a"), dense("a")
    assert kept != whole
    for name, width in kept.items():
        assert width % 8 == 0 or width == whole[name]
        assert width >= min(16, whole[name])
    assert kept["block1.conv1"] >= whole["block1.conv1"] / 2


def test_the_recorded_command_repeats_the_constraints(prune, here):
    widths, whole = ("--round-to", "conv1=4,block2.conv2=8"), ("--ignore", "block1.conv1", "--ignore", "block2.conv1")
    flags = (*widths, *whole, "--budget", "macs=0.8")
    assert run(*prune, *flags, "--out", "a").code == 0
    first = record("a")["asked"]
    assert first["ignore"] == ["block1.conv1", "block2.conv1"]
    assert run(*first["command"].split()[1:], "--overwrite").code == 0
    assert record("a")["asked"] == first


def test_a_file_gives_the_same_as_flags(prune, here):
    Path("c.toml").write_text(
        "round-to = 8\nmin_width = 16\nbudget = 'macs=0.7'\n[max-share]\n'block1.conv1' = 0.5\n", encoding="utf-8"
    )
    start = [word for word in prune if word not in ("--budget", "macs=0.5")]
    assert run(*start, "--config", "c.toml", "--out", "a").code == 0
    assert record("a")["asked"]["constraints"] == SHARED


def test_groups_that_go_together_keep_the_same_width(prune, here):
    Path("c.toml").write_text('together = [["conv1", "block1.conv1"]]\n', encoding="utf-8")
    for given in (("--together", "conv1,block1.conv1"), ("--config", "c.toml")):
        assert run(*prune, *given, "--out", "a", "--overwrite").code == 0
        assert record("a")["asked"]["constraints"] == {"together": [["conv1", "block1.conv1"]]}
        gone = {
            (e["parameter"], e["axis"]): e["indices"] for e in json.loads(Path("a/plan.json").read_text())["removed"]
        }
        assert gone["conv1.weight", 0] == gone["block1.conv1.weight", 0]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--round-to", "eight"), "--round-to 'eight': give a number, or NAME=NUMBER"),
        (("--round-to", "conv1=8,9"), "--round-to 'conv1=8,9'"),
        (("--round-to", "conv1=8,conv1=4"), "once per name"),
        (("--round-to", "0"), "round_to=0"),
        (("--min-width", "2.5"), "--min-width '2.5'"),
        (("--min-width", "nowhere=4"), "min_width names 'nowhere'"),
        (("--max-share", "2"), "max_share=2.0"),
        (("--max-share", "0.05"), "within the constraints (max_share=0.05)"),
        (("--together", "conv1"), "at least two"),
    ],
)
def test_mistakes_are_said_in_one_line(prune, here, flags, message):
    assert message in refused(*prune, *flags, "--out", "a")


@pytest.mark.parametrize("flag", ["--blocks", "--no-blocks"])
def test_whether_blocks_may_go_reaches_the_result(prune, here, flag):
    assert run(*prune, flag, "--method", "causal", "--budget", "macs=0.5", "--out", "whole").code == 0
    made = record("whole")
    assert made["asked"]["blocks"] == (flag == "--blocks")
    assert set(made["blocks"]) <= ({"block1"} if flag == "--blocks" else set())
    assert ("block1.conv1", 0) in widths("whole").items() or not made["blocks"]
