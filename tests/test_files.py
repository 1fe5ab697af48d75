import pytest

from dermsynth.errors import InputError
from dermsynth.files import make_folder, new_folder


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
