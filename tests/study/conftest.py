import shutil

import pytest

from tests.processes import TIMEOUT, start
from tests.study.helpers import make_study, work


@pytest.fixture(scope="session")
def finished(base, tmp_path_factory):
    """A study that has come to its end: its file and its folder; whoever changes it puts it back."""
    folder = tmp_path_factory.mktemp("finished")
    file, out, log = make_study(folder, base), folder / "out", folder / "log"
    (process,) = start(work, 1, str(file), str(out), str(log))
    process.join(TIMEOUT)
    assert process.exitcode == 0, log.read_text() + "".join(f.read_text() for f in (out / "logs").glob("*"))
    return file, out


@pytest.fixture
def again(finished, tmp_path, monkeypatch):
    """A copy of the finished study, in the same place as far as it knows; its file and folder."""
    file, out = finished
    kept = tmp_path / "kept"
    shutil.copytree(file.parent, kept, symlinks=True)
    yield file, out
    shutil.rmtree(file.parent)
    shutil.copytree(kept, file.parent, symlinks=True)
