"""A file appears whole or not at all, and nothing is left beside it."""

import os

import pytest

from whyprune.atomic import atomic_file
from whyprune.errors import InputError


def test_the_file_appears_only_at_the_end(tmp_path):
    target = tmp_path / "a.txt"
    with atomic_file(target) as temporary:
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_failure_keeps_the_old_file_and_leaves_nothing(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def write_half():
        with atomic_file(target) as temporary:
            temporary.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        write_half()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_permissions_are_those_of_a_new_file(tmp_path):
    with atomic_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("")
    (tmp_path / "b.txt").write_text("")
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "b.txt").stat().st_mode


def test_a_missing_folder_is_one_clear_error(tmp_path):
    with pytest.raises(InputError, match="cannot write"), atomic_file(tmp_path / "none" / "a.txt"):
        pass
