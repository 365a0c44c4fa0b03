"""The tables on the pages are those of the records, and `--check` tells a page that is not."""

import re

import pytest

tables = pytest.importorskip("benchmarks.tables", reason="the project's root is on no path: python -m pytest")


def test_the_tables_are_up_to_date():
    assert tables.main(["--check"]) == 0, "run python -m benchmarks.tables"


def test_a_page_that_is_not_is_told_and_left_alone_until_it_is_written(tmp_path, monkeypatch, capsys):
    page = tmp_path / "README.md"
    page.write_text(re.sub(r"\d", "0", (tables.ROOT / "README.md").read_text()))
    stale = page.read_text()
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    monkeypatch.setattr(tables, "PAGES", ("README.md",))
    assert tables.main(["--check"]) == 1
    assert "not up to date: README.md: run python -m benchmarks.tables" in capsys.readouterr().err
    assert page.read_text() == stale
    assert tables.main([]) == 0
    assert page.read_text() != stale
    assert tables.main(["--check"]) == 0
