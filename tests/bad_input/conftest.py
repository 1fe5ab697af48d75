"""A download to spoil, and a folder beside it that nothing may open or change."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.bad_input.helpers import COUNT, PICTURE, PNG, table
from tests.data.sets.test_decoding import jpeg

_opened: list[str] | None = None


def _watch(event, arguments):
    if _opened is not None and event in ("open", "os.listdir", "os.scandir", "os.rename", "os.remove", "os.mkdir"):
        _opened.extend(os.path.realpath(a) for a in arguments if isinstance(a, str | os.PathLike))


sys.addaudithook(_watch)


@pytest.fixture(autouse=True)
def outside(tmp_path):
    """A folder that nobody was told of; it is neither opened nor changed."""
    global _opened
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret.png").write_bytes(PNG)
    (folder / "table.csv").write_text(table())
    before = contents(folder)
    _opened = []
    yield folder
    seen, _opened = _opened, None
    assert not [path for path in seen if Path(path).is_relative_to(folder.resolve())]
    assert contents(folder) == before


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "isic2020"
    (folder / "train").mkdir(parents=True)
    (folder / "train.csv").write_text(table())
    for number in range(COUNT):
        (folder / "train" / f"ISIC_{number:07d}.jpg").write_bytes(jpeg(np.roll(PICTURE, 2 * number, axis=1)))
    return folder


@pytest.fixture
def out(tmp_path):
    return tmp_path / "set"
