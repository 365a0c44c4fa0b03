"""The page needs nothing else, lies about nothing, and runs no one else's code."""

import base64
import dataclasses
import hashlib
import html
import json
import os
import re
from html.parser import HTMLParser

import pytest
from made_up_run import WORDS, bare_result, epochs, full_result, unit_rows
from test_rows import back

from whyprune.errors import InputError
from whyprune.report import UnitRow, render, write_report
from whyprune.results import GroupSummary, RefusalSummary

ROWS = unit_rows()
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\u2028{{ 7*7 }}"


class Page(HTMLParser):
    """Elements with attributes, the text of each script, and the visible text."""

    VOID = ("meta", "input", "link", "img", "br", "hr")

    def __init__(self, page):
        super().__init__()
        self.elements, self.scripts, self.text, self.open = [], [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        if "script" in self.open:
            self.scripts[-1] += data
        elif "style" not in self.open:
            self.text.append(data)

    def with_tag(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def text():
    return render(full_result(ROWS, recovery=epochs(3)), ROWS, **WORDS, folder="resnet56-half")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_the_page_is_one_file(text, page):
    assert text.startswith("<!DOCTYPE html>")
    for _, attrs in page.elements:
        assert not {"src", "srcset", "data", "action", "poster"} & attrs.keys()
        assert attrs.get("href", "#").startswith("#")
        assert not any(name.startswith("on") for name in attrs)
    assert not page.with_tag("link")
    assert not page.with_tag("iframe")
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|import\(", text)


def test_the_policy_allows_the_pages_own_script_only(page):
    policy = next(m["content"] for m in page.with_tag("meta") if "http-equiv" in m)
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}';" in policy
    assert len(page.scripts) == 2


def test_the_embedded_data_holds_every_unit(page):
    assert back(json.loads(page.scripts[0])) == ROWS


def test_numbers_are_the_records(page):
    result = full_result(ROWS)
    for network in (result.dense, result.pruned):
        for shown in (f"{network.top1_percent:.2f}%", f"{network.macs:,}", f"{network.params:,}"):
            assert shown in page.words
        assert f"{network.bytes:,}" in page.words
        assert f"{network.latency.p50_ms:.2f} ms" in page.words
        low, high = network.top1_interval_percent
        assert f"{low:.2f} to {high:.2f}" in page.words
    for shown in (
        *("−1.79 points", "50.0% of dense", "1.62× as fast", "1.55 to 1.70", "41.22%", "0.0131", "0.0419"),
        *("0.0382 to 0.0457", "0.913", "3.8×10⁻⁶", "2.1×10⁻⁵", "3 min 35 s", "91.20%"),
    ):
        assert shown in page.words
    for fact in (*result.notes, *result.versions.values(), "Some CPU @ 2.60GHz", result.asked["command"]):
        assert fact in page.words
    assert "0.4914, 0.4822, 0.4465" in page.words
    assert page.words.count("twice") == 0
    assert 'wp.load(fresh_model, "resnet56-half")' in page.words


def test_each_group_has_its_width_and_picture(page):
    pictures = [svg["aria-label"] for svg in page.with_tag("svg") if svg.get("role") == "img"]
    groups = full_result(ROWS).groups
    assert pictures[: len(groups)] == [f"{g.kept} of {g.width} units kept" for g in groups]
    for group in groups:
        removed = f"{group.width - group.kept} of {group.width} removed"
        assert any(p.startswith(f"{group.name}: ") and p.endswith(removed) for p in pictures)


def test_structure_serves_assistive_technology(page):
    assert page.with_tag("html") == [{"lang": "en"}]
    for landmark in ("header", "main", "nav", "footer", "h1", "title"):
        assert len(page.with_tag(landmark)) == 1
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    named = [attrs.get("aria-labelledby") for _, attrs in page.elements]
    linked = [a["href"][1:] for a in page.with_tag("a")]
    assert {*filter(None, named), *linked} <= set(ids)
    assert all("scope" in th for th in page.with_tag("th"))
    for svg in page.with_tag("svg"):
        assert svg.get("aria-hidden") == "true" or svg["aria-label"]
    assert page.open == []


def test_hostile_names_are_text_everywhere():
    rows = [dataclasses.replace(r, group=HOSTILE, unit=HOSTILE) for r in ROWS[:3]]
    group = GroupSummary(name=HOSTILE, width=3, kept=1, removable=3, axes=[HOSTILE], macs_before=2, macs_after=1)
    result = full_result(
        rows,
        asked={"model": HOSTILE, "command": HOSTILE, HOSTILE: HOSTILE},
        groups=[group],
        refusals=[RefusalSummary(where=HOSTILE, reason=HOSTILE, channels=1)],
        notes=[HOSTILE],
        versions={HOSTILE: HOSTILE},
        timings_s={HOSTILE: 1.0},
        normalization={HOSTILE: HOSTILE},
    )
    words = dict.fromkeys(WORDS, HOSTILE)
    text = render(result, rows, **words, folder=HOSTILE)
    page, calm = Page(text), Page(render(full_result(ROWS), ROWS, **WORDS))
    assert len(page.scripts) == 2
    assert page.scripts[1] == calm.scripts[1]
    assert not page.with_tag("img")
    assert back(json.loads(page.scripts[0])) == rows
    assert "<" not in page.scripts[0]
    assert "<script>alert" not in text
    assert html.escape(HOSTILE.split("\u2028", maxsplit=1)[0], quote=False)[:30] in text
    assert "49" not in page.words.split()


def test_what_was_not_measured_reads_well():
    page = Page(render(bare_result(), **WORDS))
    for sentence in (
        *("accuracy not measured", "joint effect was not measured", "No units were recorded", "No notes"),
        *("No groups were recorded", "No effects of single units", "every channel could have been removed"),
    ):
        assert sentence in page.words
    assert "None" not in page.words
    assert "nan" not in page.words.lower().split()
    assert page.scripts == []
    some = [UnitRow("g", "u", 0, 0.0, None, None, None, 1, True, 1, 1)]
    assert back(json.loads(Page(render(bare_result(), some, **WORDS)).scripts[0])) == some


def test_thousands_of_units_stay_small():
    rows = [dataclasses.replace(r, index=i) for i, r in enumerate(ROWS * 2)]
    assert len(rows) > 2000
    assert len(render(full_result(ROWS), rows, **WORDS).encode()) < 1_000_000


def test_the_same_record_gives_the_same_file(tmp_path):
    for name in ("a.html", "b.html"):
        assert write_report(tmp_path / name, full_result(ROWS), ROWS, **WORDS) == tmp_path / name
    first, second = ((tmp_path / name).read_bytes() for name in ("a.html", "b.html"))
    assert first == second
    assert f'"{tmp_path.name}"'.encode() in first or f"&#34;{tmp_path.name}&#34;".encode() in first
    assert sorted(os.listdir(tmp_path)) == ["a.html", "b.html"]


def test_a_path_that_cannot_be_written_is_one_clear_error(tmp_path):
    with pytest.raises(InputError, match="cannot write"):
        write_report(tmp_path / "none" / "report.html", bare_result(), **WORDS)
