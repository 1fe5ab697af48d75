import os
import shutil
import sys
from pathlib import Path

import pytest
import torch

from tests.builders import make_pipeline

TESTS = Path(__file__).parent


def pytest_configure(config):
    """One thread a process, as the tests run on several and start more."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """A tiny pipeline with random weights; read only."""
    return str(make_pipeline(tmp_path_factory.mktemp("models") / "base"))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder but for `line.yaml`, from which `toy` can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(TESTS)
    monkeypatch.setattr(sys, "argv", ["dermsynth"])
    shutil.copy(TESTS / "line.yaml", tmp_path)
    return tmp_path


@pytest.fixture
def real_data():
    """The folder of real ISIC downloads; without it a test that asks for them fails and does not pass by."""
    return _folder("DERMSYNTH_DATA")


@pytest.fixture
def real_models():
    """The folder of model configurations."""
    return _folder("DERMSYNTH_MODELS")


def _folder(variable):
    folder = Path(os.environ.get(variable, ""))
    assert variable in os.environ, f"set {variable} (docs/design.md), or leave these tests out: -m 'not real_data'"
    assert folder.is_dir(), f"{variable}: {folder} is no folder"
    return folder
