"""Files that appear whole or not at all, and links that stay in their folder."""

import contextlib
import os

import pytest

from dermsynth.errors import InputError
from dermsynth.files import make_folder, new_folder, read_json, reading, refuse_links_out, whole_file


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


def test_what_cannot_be_read_is_named_with_the_reason(tmp_path):
    with pytest.raises(InputError) as error, reading(tmp_path):
        tmp_path.read_bytes()
    assert str(error.value) == f"{tmp_path}: cannot be read (Is a directory)."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not JSON in UTF-8"),
        (b"", "not JSON in UTF-8"),
        (b'{"a": "\xff"}', "not JSON in UTF-8"),
        (b"[1]", "holds a list; expected an object"),
        (b"null", "holds a NoneType; expected an object"),
    ],
)
def test_a_json_file_holds_an_object(tmp_path, content, message):
    path = tmp_path / "it.json"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_json(path, "Write it again.")
    assert str(error.value).startswith(f"{path}: {message}")
    assert str(error.value).endswith(" Write it again.")
    path.write_text('{"ä": 1}', encoding="utf-8")
    assert read_json(path, "") == {"ä": 1}


def test_a_new_folder_appears_when_it_is_complete(tmp_path):
    out = tmp_path / "a/b/out"
    with new_folder(out) as folder:
        (folder / "file").write_text("x")
        assert not out.exists()
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert (out / "file").read_text() == "x"


def test_what_a_killed_command_left_is_removed(tmp_path):
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial/old").touch()
    with new_folder(tmp_path / "out"):
        pass
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_in_use_is_refused(tmp_path):
    with pytest.raises(InputError, match="exists already"), new_folder(tmp_path):
        pass


@pytest.mark.parametrize("place", ["file/out", "file/deeper/out"])
def test_a_file_in_the_way_is_said(tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="no folder can be made there"), new_folder(tmp_path / place):
        pass


def test_a_file_in_the_place_of_the_folder_to_be_is_said(tmp_path):
    (tmp_path / ".out.partial").touch()
    with pytest.raises(InputError, match="no folder can be made there"), new_folder(tmp_path / "out"):
        pass


def test_a_folder_may_be_there_unless_it_must_be_new(tmp_path):
    make_folder(tmp_path)
    with pytest.raises(InputError, match="no folder can be made there"):
        make_folder(tmp_path, new=True)
