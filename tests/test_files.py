"""Files that appear whole or not at all, and links that stay in their folder."""

import contextlib
import os

import pytest

from dermsynth.errors import InputError
from dermsynth.files import refuse_links_out, whole_file


def test_a_file_appears_when_it_is_whole_and_otherwise_the_old_one_stays(tmp_path):
    path = tmp_path / "table"
    with whole_file(path) as file:
        file.write(b"old")
        assert not path.exists()
    with contextlib.suppress(KeyboardInterrupt), whole_file(path) as file:
        file.write(b"ne")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_who_write_the_same_file_at_once_do_not_meet(tmp_path):
    path = tmp_path / "table"
    with whole_file(path) as one, whole_file(path) as other:
        one.write(b"one" * 1000)
        other.write(b"other")
    assert path.read_bytes() == b"one" * 1000


@pytest.mark.parametrize("links", [{"a": "a"}, {"a": "b", "b": "a"}, {"a": "inner/../a"}])
def test_links_in_a_circle_lead_nowhere_and_are_no_crash(tmp_path, links):
    (tmp_path / "inner").mkdir()
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
    refuse_links_out(tmp_path)
    with pytest.raises(InputError, match="a: cannot be read"):
        refuse_links_out(tmp_path / "a")


def test_a_folder_that_may_not_be_looked_into_is_named(tmp_path, monkeypatch):
    (tmp_path / "open" / "shut").mkdir(parents=True)
    scandir = os.scandir

    def guarded(folder):
        if folder.name == "shut":
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(InputError, match=r"open/shut: cannot be read \(Permission denied\)"):
        refuse_links_out(tmp_path)
