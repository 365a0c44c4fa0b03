"""`whyprune devices table`: measured once, shown, drawn, and read by machines."""

import json

import pytest
from command_line import refused, run


@pytest.fixture(autouse=True)
def own_folders(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def test_a_table_is_measured_drawn_and_found_again(tmp_path):
    asked = ("devices", "table", "digits_cnn", "--device", "local-torch-1t", "--multiple", "16")
    first = run(*asked, "--json", "--plot", "table.png")
    assert first.code == 0, first.err
    found = json.loads(first.out)
    assert found["device"] == "local-torch-1t"
    assert found["kind"] == "measured"
    assert found["dense_ms"] > 0
    assert all(w % 16 == 0 or w == c["widths"][-1] for c in found["curves"] for w in c["widths"])
    assert all(ms > 0 for c in found["curves"] for ms in c["ms"])
    assert (tmp_path / "table.png").read_bytes().startswith(b"\x89PNG")
    again = json.loads(run(*asked, "--json").out)
    assert again["curves"] == found["curves"]  # nothing was timed again
    shown = run(*asked)
    assert "worth pruning to" in shown.out


def test_what_cannot_be_tabulated_is_said(tmp_path):
    assert "no device 'nowhere'" in refused("devices", "table", "digits_cnn", "--device", "nowhere")
    message = refused("devices", "table", "digits_cn", "--device", "local-torch-1t")
    assert "digits_cnn" in message
