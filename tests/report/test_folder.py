import pytest

from dermsynth.errors import InputError
from dermsynth.report.folder import write


def test_out_that_is_a_file_is_refused(tmp_path, comparison):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="this is a file; give a folder"):
        write(comparison(), tmp_path / "file")
    with pytest.raises(InputError, match=r"file/out: no folder can be made there \(Not a directory\)"):
        write(comparison(), tmp_path / "file" / "out")
