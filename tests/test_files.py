"""Files that appear whole or not at all, and links that stay in their folder."""

import contextlib
import os

import pytest
import torch
from safetensors.torch import save_file

from dermsynth.errors import InputError
from dermsynth.files import OF_THE_SYSTEM, make_folder, new_folder, read_json, reading, refuse_links_out, whole_file


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
    (tmp_path / ".out.0123456789abcdef.partial").mkdir()
    (tmp_path / ".out.0123456789abcdef.partial/old").touch()
    (tmp_path / ".out.b.partial.txt").touch()
    with new_folder(tmp_path / "out"):
        pass
    assert list((tmp_path / "out").iterdir()) == []
    assert names(tmp_path) == [".out.b.partial.txt", "out"]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("content", ["", "x"])
def test_of_two_who_make_one_folder_the_second_is_refused_and_the_first_is_whole(tmp_path, content):
    out = tmp_path / "out"

    def second():
        with new_folder(out) as other:
            (other / "other").touch()
            with new_folder(out) as one:
                assert (other / "other").exists()
                if content:
                    (one / "one").touch()

    with pytest.raises(InputError, match="another command has made it meanwhile"):
        second()
    assert names(tmp_path) == ["out"]
    assert names(out) == (["one"] if content else [])


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), ValueError("I/O error: No space left on device (os error 28)")],
)
def test_a_full_disk_leaves_nothing_of_a_new_folder(tmp_path, error):
    with (  # noqa: PT012  (the block's end is what is tested)
        pytest.raises(InputError, match=r"cannot be written \(.*No space left"),
        new_folder(tmp_path / "out") as folder,
    ):
        (folder / "half").touch()
        raise error
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "out"):
        raise KeyboardInterrupt
    assert names(tmp_path) == []


@pytest.mark.parametrize(("mask", "rights"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_whatever_is_written_has_the_rights_of_new_files(tmp_path, mask, rights):
    before = os.umask(mask)
    try:
        with new_folder(tmp_path / "out") as folder:
            save_file({"a": torch.ones(1)}, folder / "weights.safetensors")
    finally:
        os.umask(before)
    assert (tmp_path / "out/weights.safetensors").stat().st_mode & 0o777 == rights


def test_a_folder_in_use_is_refused(tmp_path):
    with pytest.raises(InputError, match="exists already"), new_folder(tmp_path):
        pass


@pytest.mark.parametrize("place", ["file/out", "file/deeper/out"])
def test_a_file_in_the_way_is_said(tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="no folder can be made there"), new_folder(tmp_path / place):
        pass


def test_a_folder_may_be_there_unless_it_must_be_new(tmp_path):
    make_folder(tmp_path)
    with pytest.raises(InputError, match="no folder can be made there"):
        make_folder(tmp_path, new=True)


def test_what_safetensors_cannot_write_is_told_as_the_systems_word(tmp_path):
    said = rf"^--out {tmp_path}/out: cannot be written \(.*{OF_THE_SYSTEM} 2\)"
    with pytest.raises(InputError, match=said), new_folder(tmp_path / "out") as folder:
        save_file({"a": torch.ones(1)}, folder / "not there" / "weights.safetensors")
