import pytest

from whyprune.progress import Progress, track


@pytest.fixture(params=[False, True], ids=["pipe", "terminal"])
def terminal(request, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR" if request.param else "NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    return request.param


@pytest.mark.parametrize("items", [[], [3, 1, 2], iter(range(4))])
def test_track_gives_the_same_items(items, terminal):
    kept = list(items)
    assert list(track(iter(kept), "units")) == kept
    assert list(track(kept, "units", enabled=False)) == kept


def test_bars_show_only_on_a_terminal_and_only_on_standard_error(terminal, capsys):
    list(track(range(3), "counting units"))
    out, err = capsys.readouterr()
    assert out == ""
    assert ("counting units" in err) == terminal


def test_nothing_is_shown_when_disabled(terminal, capsys):
    with Progress(enabled=False) as bars:
        bar = bars.add("units", total=2)
        bars.advance(bar, description="half")
    assert capsys.readouterr() == ("", "")


def test_an_error_inside_passes_through_and_ends_the_bar(terminal):
    def broken():
        yield 1
        raise ZeroDivisionError

    for _ in range(2):  # a bar that was left running would refuse the second one
        with pytest.raises(ZeroDivisionError):
            list(track(broken(), "units"))
