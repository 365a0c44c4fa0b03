"""Ctrl-C in recovery loses nothing: the resumed run ends as if it had never been interrupted."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import QUICK, listing, record, refused, run

from whyprune.pipeline import steps

STEPS_PER_EPOCH = 10  # 1,167 images in batches of 128


@pytest.fixture
def tuned(weights):
    return (
        *("prune", "toys:interrupted", "--weights", weights, "--mean", "0.3", "--std", "0.37"),
        *("--data", "digits", "--budget", "macs=0.5", *QUICK, "--finetune-epochs", "2"),
        *("--learning-rate", "0.003", "--accelerator", "cpu", "--out", "out"),
    )


def pressed(arguments, folder, step):
    """The command in a process of its own, with Ctrl-C in one of its training steps."""
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, "-m", "whyprune", *map(str, arguments)],
        cwd=folder,
        env=os.environ
        | {"TOYS_INTERRUPT_AT": str(step), "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"},
        # Shells start background jobs deaf to Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_second_device_helps_and_writes_nothing(tuned, here):
    """Fabric starts the command once more for it: that process must not prune, measure or write again."""
    done = pressed((*tuned, "--devices", "2", "--quiet"), here, 0)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert [p.name for p in here.iterdir()] == ["out"]
    kept = record("out")
    assert kept["asked"]["recovery"]["devices"] == 2
    assert len(kept["recovery"]) == 2


def test_a_helper_without_its_leader_is_refused(tuned, here, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert "start whyprune as one process" in refused(*tuned)


def comparable(folder):
    """The record without what differs from run to run."""
    kept = record(folder)
    kept["recovery"] = [{k: v for k, v in epoch.items() if k != "seconds"} for epoch in kept["recovery"]]
    return {k: v for k, v in kept.items() if k not in ("timings_s", "machine")}


def test_a_resumed_run_ends_like_an_uninterrupted_one(tuned, tmp_path, monkeypatch):
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    broken.mkdir()
    whole.mkdir()
    stopped = pressed(tuned, broken, STEPS_PER_EPOCH + 4)
    assert stopped.returncode == 130, stopped.stderr
    assert stopped.stdout == ""
    assert "Traceback" not in stopped.stderr
    assert "interrupted: the pruned network and the recovery's checkpoint are kept" in stopped.stderr
    assert "--resume" in stopped.stderr
    assert [p.name for p in broken.iterdir()] == ["out.partial"]

    monkeypatch.chdir(broken)
    assert "--resume goes on with it" in refused(*tuned)
    assert "seed=0, now it is 1" in refused(*tuned, "--resume", "--seed", "1")
    assert run(*tuned, "--resume").code == 0
    monkeypatch.chdir(whole)
    # Resuming where there is nothing starts from the beginning.
    assert run(*tuned, "--resume").code == 0

    assert listing(broken) == listing(whole)
    for name in ("model.safetensors", "plan.json", "effects.parquet"):
        assert (broken / "out" / name).read_bytes() == (whole / "out" / name).read_bytes()
    assert comparable(broken / "out") == comparable(whole / "out")


def test_an_interrupted_run_can_be_forgotten(tuned, here, monkeypatch):
    once = (*tuned, "--finetune-epochs", "1")
    monkeypatch.setenv("TOYS_INTERRUPT_AT", "2")  # one step in training mode is tried before any work
    # Shells start background jobs deaf to Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert run(*once).code == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert [p.name for p in here.iterdir()] == ["out.partial"]
    monkeypatch.delenv("TOYS_INTERRUPT_AT")
    assert run(*once, "--overwrite").code == 0
    assert [p.name for p in here.iterdir()] == ["out"]


def test_ctrl_c_before_recovery_leaves_nothing(tuned, here, monkeypatch):
    monkeypatch.setattr(steps, "verify", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    result = run(*tuned)
    assert result.code == 130
    assert result.err.splitlines()[-1] == "interrupted: nothing was written"
    assert listing(here) == []


def test_a_folder_in_the_way_of_the_workspace_is_kept(tuned, here):
    (here / "out.partial").mkdir()
    (here / "out.partial" / "precious").touch()
    for more in ((), ("--resume",), ("--overwrite",)):
        assert "is in the way" in refused(*tuned, *more)
    assert listing(here) == ["out.partial", "out.partial/precious"]
